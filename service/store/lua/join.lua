-- join_v3: make a user a member of a group, creating the group if need be.
--
-- KEYS  none (one server)
-- ARGV  1: msgpack {epoch, user, user_tag, group, group_tag, mailbox (the caller's own, '' if none), mailbox_cap
--       (entries), connection, send (the origin; 0, 0 if none), announce (members; for groups without a setting of
--       their own), streams_max (groups), may_create, may_join_closed (booleans), not_before, not_after (ms, server's
--       clock)}
-- Returns {'ok', id in the group's stream (the `joined` entry, or the head where none is announced), the group's
--         head before, is_new (0: was a member, nothing written, id is the start of the open stretch), is_announced}
-- Errors  fenced, reset, {'late', now (ms)} (outside of not_before … not_after), group_closed (also: may not be
--         created), too_many_streams. All before anything is written.
--
-- The user's list is written first, then the group: the list is always a superset of the memberships. Stretches of the
-- user's record that mean nothing any more are taken out of it.

local function join(_, args)
  local arg = cmsgpack.unpack(args[1])
  local refusal = fence({[arg.user_tag] = true, [arg.group_tag] = true}, arg.epoch)
  local now = now_ms()
  refusal = refusal or untimely(arg, now)
  if refusal then return refusal end

  local group_key, list_key = key(arg.group_tag, 'g', arg.group), key(arg.user_tag, 'u', arg.user)
  local group = state(arg.group_tag, 'group:' .. arg.group)
  local inbox = state(arg.user_tag, 'user:' .. arg.user)
  local head = group.head
  local record = redis.call('HGET', group_key, arg.user)
  if is_member(record) then return {'ok', string.match(record, '([^|;]+),$'), head, 0, 0} end

  local exists = redis.call('EXISTS', group_key) == 1
  local settings = redis.call('HMGET', group_key, '/access', '/announce', '/members')
  if (exists and settings[1] == 'closed' and not arg.may_join_closed) or (not exists and not arg.may_create) then
    return {'group_closed'}
  end
  local is_listed = redis.call('HEXISTS', list_key, arg.group) == 1
  if not is_listed and redis.call('HLEN', list_key) >= arg.streams_max then return {'too_many_streams'} end

  local members = (tonumber(settings[3]) or 0) + 1
  local is_announced = members <= (tonumber(settings[2]) or arg.announce)
  local id = is_announced and next_id(group, now) or head
  local earlier = record and prune(record, group, arg) or (exists and 'member|' or 'owner|')
  if string.sub(earlier, -1) ~= '|' then earlier = earlier .. ';' end
  local entry = {'t', 'joined', 'f', arg.user, 'o', group.name}
  local common, post = content('joined', arg.user, group.name, '', '', '', ''), new_post(arg.mailbox)

  redis.call('HSET', list_key, arg.group, '1')
  redis.call('HSET', group_key, arg.user, earlier .. id .. ',', '/members', string.format('%.0f', members))
  if not exists then redis.call('HSET', group_key, '/access', 'open') end
  if is_announced then
    append(group, now, entry)
    deliver(post, group, nil, arg.connection, arg.send, common)
  end
  -- The offset at a join is the point of joining, for every device that has none from an earlier membership.
  for _, device in ipairs(redis.call('HKEYS', key(arg.user_tag, 'd', arg.user))) do
    redis.call('HSETNX', key(arg.user_tag, 'o', arg.user .. '/' .. device), group.name, id .. ' ' .. arg.epoch)
  end
  append(inbox, now, entry)
  deliver(post, inbox, nil, 0, 0, common)
  hand_over(post, arg.mailbox_cap)
  return {'ok', id, head, 1, is_announced and 1 or 0}
end

redis.register_function{function_name = 'join_v3', callback = join, flags = {}}
