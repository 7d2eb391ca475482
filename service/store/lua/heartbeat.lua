-- heartbeat_v1: note that a node lives, with its facts, and forget those that were silent for too long.
--
-- KEYS  none (one server)
-- ARGV  1: msgpack {node, ttl_ms, facts (map of strings)}
-- Returns {'ok', list of the live nodes}
-- Errors  none. Not fenced, and allowed on a full store: who is alive decides how long a reconcile waits.

local function heartbeat(_, args)
  local arg = cmsgpack.unpack(args[1])
  local now = now_ms()
  local node_key = 'wp:node:' .. arg.node
  local facts = {'seen', string.format('%.0f', now)}
  for name, value in pairs(arg.facts) do
    facts[#facts + 1] = name
    facts[#facts + 1] = value
  end

  redis.call('ZADD', 'wp:nodes', now, arg.node)
  redis.call('DEL', node_key)
  in_chunks('HSET', node_key, facts)
  redis.call('PEXPIRE', node_key, arg.ttl_ms)
  redis.call('ZREMRANGEBYSCORE', 'wp:nodes', '-inf', string.format('(%.0f', now - arg.ttl_ms))
  return {'ok', redis.call('ZRANGE', 'wp:nodes', 0, -1)}
end

redis.register_function{function_name = 'heartbeat_v1', callback = heartbeat, flags = {'allow-oom'}}
