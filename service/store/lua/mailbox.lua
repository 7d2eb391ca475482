-- mailbox_v1: make a mailbox, with beat 0 in it. A function, so that a node finds its feet on a full store.
--
-- KEYS  none (one server)
-- ARGV  1: msgpack {mailbox (a name never used before), ttl_ms}
-- Returns {'ok'}. Not fenced: a mailbox belongs to its node, and a node in doubt on a fenced server needs one.
--         A repeat fails on the id: names are random, so it can only be a repeat, and changes nothing.

local function mailbox(_, args)
  local arg = cmsgpack.unpack(args[1])
  redis.call('XADD', arg.mailbox, '1-0', 'beat', '0')
  redis.call('PEXPIRE', arg.mailbox, arg.ttl_ms)
  return {'ok'}
end

redis.register_function{function_name = 'mailbox_v1', callback = mailbox, flags = {'allow-oom'}}
