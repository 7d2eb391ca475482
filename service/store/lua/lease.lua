-- lease_v1: renew a mailbox, put a beat into it, remove what its reader has read, and report the fence.
--
-- KEYS  none (one server)
-- ARGV  1: msgpack {mailbox, beat (number), read_upto (number of the last entry read), ttl_ms}
-- Returns {'ok', epoch, run (of the mailbox's partition, '' when its fence is missing), this server's run id}
-- Errors  {'gone', mailbox}: it does not exist; never creates one. Never fenced: it is how a node learns of it.

local function lease(_, args)
  local arg = cmsgpack.unpack(args[1])
  if redis.call('PEXPIRE', arg.mailbox, arg.ttl_ms) == 0 then return {'gone', arg.mailbox} end
  redis.call('XADD', arg.mailbox, 'NOMKSTREAM', '1-*', 'beat', string.format('%.0f', arg.beat))
  redis.call('XTRIM', arg.mailbox, 'MINID', join_id(1, arg.read_upto + 1))
  local found = redis.call('HMGET', fence_key(string.match(arg.mailbox, '{(%d+)}')), 'epoch', 'run')
  return {'ok', found[1] or '', found[2] or '', run_id()}
end

redis.register_function{function_name = 'lease_v1', callback = lease, flags = {'allow-oom'}}
