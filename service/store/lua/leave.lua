-- leave_v3: end a user's membership in a group.
--
-- KEYS  none (one server)
-- ARGV  1: msgpack {epoch, user, user_tag, group, group_tag, mailbox (the caller's own, '' if none), mailbox_cap
--       (entries), connection, send (the origin; 0, 0 if none), announce (members; for groups without a setting of
--       their own), not_before, not_after (ms, server's clock)}
-- Returns {'ok', id in the group's stream (the `left` entry, or the head where none is announced: the end of the
--         stretch), the group's head before, 1, is_announced}
-- Errors  fenced, reset, {'late', now (ms)} (outside of not_before … not_after), not_member. All before anything is
--         written.
--
-- The group is written first, the user's list last: the list is always a superset of the memberships. Stretches of the
-- user's record that mean nothing any more are taken out of it, and the record with the last of them.

local function leave(_, args)
  local arg = cmsgpack.unpack(args[1])
  local refusal = fence({[arg.user_tag] = true, [arg.group_tag] = true}, arg.epoch)
  local now = now_ms()
  refusal = refusal or untimely(arg, now)
  if refusal then return refusal end

  local group_key, list_key = key(arg.group_tag, 'g', arg.group), key(arg.user_tag, 'u', arg.user)
  local record = redis.call('HGET', group_key, arg.user)
  if not is_member(record) then return {'not_member'} end

  local group = state(arg.group_tag, 'group:' .. arg.group)
  local inbox = state(arg.user_tag, 'user:' .. arg.user)
  local head = group.head
  local settings = redis.call('HMGET', group_key, '/announce', '/members')
  local members = tonumber(settings[2]) or 1
  local is_announced = members <= (tonumber(settings[1]) or arg.announce)
  local id = is_announced and next_id(group, now) or head
  local entry = {'t', 'left', 'f', arg.user, 'o', group.name}
  local common, post = content('left', arg.user, group.name, '', '', '', ''), new_post(arg.mailbox)
  local kept = prune(record .. id, group, arg)

  redis.call('HSET', group_key, '/members', string.format('%.0f', math.max(members - 1, 0)))
  if members <= 1 then redis.call('HSET', group_key, '/emptied', string.format('%.0f', now)) end
  if kept then redis.call('HSET', group_key, arg.user, kept) else redis.call('HDEL', group_key, arg.user) end
  if is_announced then
    append(group, now, entry)
    deliver(post, group, nil, arg.connection, arg.send, common)
  end
  append(inbox, now, entry)
  deliver(post, inbox, nil, 0, 0, common)
  hand_over(post, arg.mailbox_cap)
  redis.call('HDEL', list_key, arg.group)
  return {'ok', id, head, 1, is_announced and 1 or 0}
end

redis.register_function{function_name = 'leave_v3', callback = leave, flags = {'allow-oom'}}
