-- group_v1: how a group stands. Writes nothing.
--
-- KEYS  none (one server)
-- ARGV  1: msgpack {epoch, group, group_tag, user (who asks, '' for a server key), announce (members; for groups
--       without a setting of their own)}
-- Returns {'ok', row (see group_row in _group)}
-- Errors  fenced, reset, not_member (to a user, whether or not the group exists), no_group (to a server key)

local function group(_, args)
  local arg = cmsgpack.unpack(args[1])
  local refusal = fence({[arg.group_tag] = true}, arg.epoch)
  if refusal then return refusal end

  local found, record = read_group(arg), false
  if arg.user ~= '' then record = redis.call('HGET', found.key, arg.user) end
  if arg.user ~= '' and (found.is_new or not is_member(record)) then return {'not_member'} end
  if found.is_new then return {'no_group'} end
  return {'ok', group_row(found, arg, record)}
end

redis.register_function{function_name = 'group_v1', callback = group, flags = {'no-writes'}}
