-- join_v4: make a user a member of a group, creating the group if need be; or give a member another role.
--
-- KEYS  none (one server)
-- ARGV  1: msgpack {epoch, user, user_tag, group, group_tag, mailbox (the caller's own, '' if none), mailbox_cap
--       (entries), connection, send (the origin; 0, 0 if none), announce (members; for groups without a setting of
--       their own), by (the member that puts the user in, '' for nobody), may_create, may_enter (a closed group;
--       booleans), role ('' to leave it as it is), streams_max (groups), members_max, not_before, not_after (ms,
--       server's clock)}
-- Returns {'ok', id in the group's stream (the `joined` entry, or the head where none is announced), the group's head
--         before, is_new (0: was a member, nothing but the role is written, id is the start of the open stretch),
--         is_announced}
-- Errors  fenced, reset, {'late', now (ms)} (outside of not_before … not_after), not_member, not_allowed (`by` is no
--         member, no owner), group_closed (also: may not be created, or is being deleted), group_full,
--         too_many_streams. All before anything is written.
--
-- The user's list is written first, then the group: the list is always a superset of the memberships. Stretches of the
-- user's record that mean nothing any more are taken out of it. The owner may always come back.

local function join(_, args)
  local arg = cmsgpack.unpack(args[1])
  local refusal = fence({[arg.user_tag] = true, [arg.group_tag] = true}, arg.epoch)
  local now = now_ms()
  refusal = refusal or untimely(arg, now)
  if refusal then return refusal end

  local settings, list_key = read_group(arg), key(arg.user_tag, 'u', arg.user)
  local group = state(arg.group_tag, 'group:' .. arg.group)
  local inbox = state(arg.user_tag, 'user:' .. arg.user)
  local head, is_new = group.head, settings.is_new
  refusal = arg.by ~= '' and not_by_owner(settings, arg.by)
  if refusal then return refusal end
  if settings.is_deleted and settings.members > 0 then return {'group_closed'} end

  local record = redis.call('HGET', settings.key, arg.user)
  if is_member(record) then
    local role, rest = string.match(record, '^(%a+)(|.*)$')
    local is_other = role and arg.role ~= '' and arg.role ~= role
    if is_other then redis.call('HSET', settings.key, arg.user, arg.role .. rest) end
    return {'ok', string.match(record, '([^|;]+),$'), head, 0, 0}
  end

  local was_owner = not is_new and is_owner(settings, arg.user, record)
  local may_enter = arg.may_enter or arg.by ~= '' or was_owner
  if is_new and not arg.may_create or not is_new and settings.is_closed and not may_enter then
    return {'group_closed'}
  end
  if settings.members >= arg.members_max then return {'group_full'} end
  local is_listed = redis.call('HEXISTS', list_key, arg.group) == 1
  if not is_listed and redis.call('HLEN', list_key) >= arg.streams_max then return {'too_many_streams'} end

  local members = settings.members + 1
  local is_announced = members <= (is_new and arg.announce or settings.announce)
  local id = is_announced and next_id(group, now) or head
  local role = arg.role ~= '' and arg.role or (is_new or was_owner) and 'owner' or 'member'
  local earlier = string.match(record and prune(record, group, arg) or '', '|(.+)$')
  local stretches = (earlier and earlier .. ';' or '') .. id .. ','
  local entry = {'t', 'joined', 'f', arg.user, 'o', group.name}
  local common, post = content('joined', arg.user, group.name, '', '', '', ''), new_post(arg.mailbox)

  redis.call('HSET', list_key, arg.group, '1')
  redis.call('HSET', settings.key, arg.user, role .. '|' .. stretches, '/members', string.format('%.0f', members))
  if is_new then make_group(settings, head) end
  if settings.maker == arg.user then redis.call('HDEL', settings.key, '/maker') end
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

redis.register_function{function_name = 'join_v4', callback = join, flags = {}}
