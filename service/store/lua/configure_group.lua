-- configure_group_v1: change the settings of a group, or make one with them.
--
-- KEYS  none (one server)
-- ARGV  1: msgpack {epoch, group, group_tag, by (who asks, '' for a server key), user_tag (of `by`, '' without),
--       may_create (boolean), access ('open', 'closed', '' to leave it as it is), announce_to (members; -1 to leave it
--       as it is), announce (members; for groups without a setting of their own), streams_max (groups), not_before,
--       not_after (ms, server's clock)}
-- Returns {'ok', row (see group_row in _group), 1 if the group was made}
-- Errors  fenced, reset, {'late', now (ms)} (outside of not_before … not_after), not_member, not_allowed (`by` is no
--         member, no owner), group_closed (there is none and it may not be made, or it is being deleted),
--         too_many_streams (whoever makes it could not join it). All before anything is written.
--
-- Whoever makes a group is its owner by a record without an open stretch: may join it, and until then configure it. It
-- counts as empty since then, so one that nobody ever joins is dropped some day.

local function configure_group(_, args)
  local arg = cmsgpack.unpack(args[1])
  local tags = {[arg.group_tag] = true}
  if arg.by ~= '' then tags[arg.user_tag] = true end
  local now = now_ms()
  local refusal = fence(tags, arg.epoch) or untimely(arg, now)
  if refusal then return refusal end

  local group = read_group(arg)
  local is_new, record = group.is_new, false
  if arg.by ~= '' then record = redis.call('HGET', group.key, arg.by) end
  if is_new then
    if not arg.may_create or (group.is_deleted and group.members > 0) then return {'group_closed'} end
    if arg.by ~= '' and redis.call('HLEN', key(arg.user_tag, 'u', arg.by)) >= arg.streams_max then
      return {'too_many_streams'}
    end
    group.announce = arg.announce
  else
    refusal = arg.by ~= '' and not_by_owner(group, arg.by, true)
    if refusal then return refusal end
  end
  if arg.access ~= '' then group.is_closed = arg.access == 'closed' end
  if arg.announce_to >= 0 then group.announce = arg.announce_to end
  if is_new and arg.by ~= '' then record = 'owner|' .. (string.match(record or '', '|(.*)$') or '') end
  local row = group_row(group, arg, record)

  if is_new then
    if record then redis.call('HSET', group.key, arg.by, record) end
    redis.call('HSET', group.key, '/members', '0', '/emptied', string.format('%.0f', now))
    make_group(group, row[4], record and arg.by or nil)
  elseif arg.access ~= '' then
    redis.call('HSET', group.key, '/access', arg.access)
  end
  if arg.announce_to >= 0 then redis.call('HSET', group.key, '/announce', string.format('%.0f', arg.announce_to)) end
  return {'ok', row, is_new and 1 or 0}
end

redis.register_function{function_name = 'configure_group_v1', callback = configure_group, flags = {'allow-oom'}}
