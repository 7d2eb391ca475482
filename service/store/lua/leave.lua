-- leave_v4: end a user's membership in a group: the user leaves, or is removed, which looks the same to everybody.
--
-- KEYS  none (one server)
-- ARGV  1: msgpack {epoch, user, user_tag, group, group_tag, mailbox (the caller's own, '' if none), mailbox_cap
--       (entries), connection, send (the origin; 0, 0 if none), announce (members; for groups without a setting of
--       their own), by (the member that removes the user, '' for nobody), is_removed (boolean: the user does not leave
--       by itself), not_before, not_after (ms, server's clock)}
-- Returns {'ok', id in the group's stream (the `left` entry, or the head where none is announced: the end of the
--         stretch), the group's head before, 1, is_announced}
-- Errors  fenced, reset, {'late', now (ms)} (outside of not_before … not_after), not_member (also: `by` is none),
--         not_allowed (`by` is no owner), not_found (`by` may, but the user is no member). All before anything is
--         written.
--
-- The group is written first, the user's list last: the list is always a superset of the memberships. Stretches of the
-- user's record that mean nothing any more are taken out of it, and the record with the last of them. An owner who
-- leaves stays its owner; one who is removed does not.

local function leave(_, args)
  local arg = cmsgpack.unpack(args[1])
  local refusal = fence({[arg.user_tag] = true, [arg.group_tag] = true}, arg.epoch)
  local now = now_ms()
  refusal = refusal or untimely(arg, now)
  if refusal then return refusal end

  local settings, list_key = read_group(arg), key(arg.user_tag, 'u', arg.user)
  refusal = arg.by ~= '' and not_by_owner(settings, arg.by)
  if refusal then return refusal end
  local record = redis.call('HGET', settings.key, arg.user)
  if not is_member(record) then return {arg.by ~= '' and 'not_found' or 'not_member'} end

  local group = state(arg.group_tag, 'group:' .. arg.group)
  local inbox = state(arg.user_tag, 'user:' .. arg.user)
  local head = group.head
  local group_key, members = settings.key, math.max(settings.members, 1)
  local is_announced = members <= settings.announce
  local id = is_announced and next_id(group, now) or head
  local entry = {'t', 'left', 'f', arg.user, 'o', group.name}
  local common, post = content('left', arg.user, group.name, '', '', '', ''), new_post(arg.mailbox)
  if settings.is_deleted or arg.is_removed then record = string.gsub(record, '^owner|', 'member|') end
  local kept = prune(record .. id, group, arg)

  redis.call('HSET', group_key, '/members', string.format('%.0f', members - 1))
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

redis.register_function{function_name = 'leave_v4', callback = leave, flags = {'allow-oom'}}
