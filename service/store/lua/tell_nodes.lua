-- tell_nodes_v1: tell every node what it has to do at once; with it a server key goes, if one is named.
--
-- KEYS  none (one server)
-- ARGV  1: msgpack {fields (map of strings: of the notice, empty ones left out), revoke (id of a server key, '' if
--       none), cap (notices kept)}
-- Returns {'ok', 1; 0 if the key to be revoked was none: nothing is told then}. Twice, a node does it twice.
-- Not fenced, and allowed on a full store: whoever is no longer let in must be out of the door on any server. A
-- function, so that a key never goes without the nodes hearing of it.

local function tell_nodes(_, args)
  local arg = cmsgpack.unpack(args[1])
  local fields = {}
  for name, value in pairs(arg.fields) do
    fields[#fields + 1] = name
    fields[#fields + 1] = value
  end
  if arg.revoke ~= '' and redis.call('HEXISTS', 'wp:keys', arg.revoke) == 0 then return {'ok', 0} end

  redis.call('XADD', 'wp:notices', 'MAXLEN', '~', arg.cap, '*', unpack(fields))
  if arg.revoke ~= '' then redis.call('HDEL', 'wp:keys', arg.revoke) end
  return {'ok', 1}
end

redis.register_function{function_name = 'tell_nodes_v1', callback = tell_nodes, flags = {'allow-oom'}}
