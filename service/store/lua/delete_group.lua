-- delete_group_v1: mark a group as deleted. Nobody joins it, sends to it or configures it any more; members may leave.
--
-- KEYS  none (one server)
-- ARGV  1: msgpack {epoch, group, group_tag, by (who asks, '' for a server key), announce (members; for groups without
--       a setting of their own), not_before, not_after (ms, server's clock)}
-- Returns {'ok'}. Harmless twice.
-- Errors  fenced, reset, {'late', now (ms)} (outside of not_before … not_after), no_group (to a server key),
--         not_member, not_allowed (`by` is no member, no owner). All before anything is written.
--
-- Members are many, so the caller removes them in steps; from now on that is announced to nobody. What is left is for
-- drop_group, which waits until the group was empty for a while; until then it can be made anew.

local function delete_group(_, args)
  local arg = cmsgpack.unpack(args[1])
  local now = now_ms()
  local refusal = fence({[arg.group_tag] = true}, arg.epoch) or untimely(arg, now)
  if refusal then return refusal end

  local group = read_group(arg)
  if arg.by ~= '' then
    refusal = not_by_owner(group, arg.by, true)
  elseif group.is_new and not group.is_deleted then
    refusal = {'no_group'}
  end
  if refusal then return refusal end
  if group.is_deleted then return {'ok'} end

  redis.call('HSET', group.key, '/access', 'deleted', '/announce', '0')
  if group.members == 0 then redis.call('HSET', group.key, '/emptied', string.format('%.0f', now)) end
  return {'ok'}
end

redis.register_function{function_name = 'delete_group_v1', callback = delete_group, flags = {'allow-oom'}}
