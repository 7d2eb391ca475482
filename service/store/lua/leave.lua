-- leave_v1: end a user's membership in a group.
--
-- KEYS  none (one server)
-- ARGV  1: msgpack {epoch, user, user_tag, group, group_tag, mailbox (the caller's own, '' if none), mailbox_cap
--       (entries), origin ('' if none), announce (members; for groups without a setting of their own)}
-- Returns {'ok', id in the group's stream (the `left` entry, or the head where none is announced: the end of the
--         stretch), the group's head before, 1, is_announced}
-- Errors  fenced, reset, not_member. All before anything is written.
--
-- The group is written first, the user's list last: the list is always a superset of the memberships.

local function leave(_, args)
  local arg = cmsgpack.unpack(args[1])
  local refusal = fence({[arg.user_tag] = true, [arg.group_tag] = true}, arg.epoch)
  if refusal then return refusal end

  local group_key, list_key = key(arg.group_tag, 'g', arg.group), key(arg.user_tag, 'u', arg.user)
  local record = redis.call('HGET', group_key, arg.user)
  if not is_member(record) then return {'not_member'} end

  local group = state(arg.group_tag, 'group:' .. arg.group)
  local inbox = state(arg.user_tag, 'user:' .. arg.user)
  local head = group.head
  local settings = redis.call('HMGET', group_key, '/announce', '/members')
  local members = tonumber(settings[2]) or 1
  local now = now_ms()
  local is_announced = members <= (tonumber(settings[1]) or arg.announce)
  local id = is_announced and next_id(group, now) or head
  local entry = {t = 'left', f = arg.user, o = group.name}

  redis.call('HSET', group_key, arg.user, record .. id, '/members', string.format('%.0f', math.max(members - 1, 0)))
  if is_announced then
    append(group, now, entry)
    deliver(group, id, entry, arg.mailbox_cap, arg.mailbox, arg.origin)
  end
  local inbox_id = append(inbox, now, entry)
  deliver(inbox, inbox_id, entry, arg.mailbox_cap, arg.mailbox, '')
  redis.call('HDEL', list_key, arg.group)
  return {'ok', id, head, 1, is_announced and 1 or 0}
end

redis.register_function{function_name = 'leave_v1', callback = leave, flags = {'allow-oom'}}
