-- audit_nodes_v1: delete mailboxes that would never expire, and take nodes off the list that are long gone.
--
-- KEYS  none (one server)
-- ARGV  1: msgpack {epoch, tag (the job's), mailboxes: list of keys, silent_before (Redis ms: who was heard of last
--       before that is taken off the list; 0: nobody), limit (nodes), lease, token}
-- Returns {'ok', list of mailboxes deleted, list of nodes taken off}. Harmless twice: a node that lives makes a new
--         mailbox, and is back on the list with its next beat.
-- Errors  fenced, reset; {'superseded', job's lease}. All before anything is written.
--
-- A mailbox with a TTL is left alone, whoever's it is: it goes by itself within seconds, and a node that is just
-- starting has one before it is on the list.

local function audit_nodes(_, args)
  local arg = cmsgpack.unpack(args[1])
  local refusal = fence({[arg.tag] = true}, arg.epoch)
  if refusal then return refusal end
  if redis.call('HGET', arg.lease, 'token') ~= arg.token then return {'superseded', arg.lease} end

  local deleted = {}
  for _, mailbox in ipairs(arg.mailboxes) do
    if redis.call('PTTL', mailbox) == -1 then
      redis.call('UNLINK', mailbox)
      deleted[#deleted + 1] = mailbox
    end
  end
  local before = string.format('(%.0f', arg.silent_before)
  local silent = redis.call('ZRANGEBYSCORE', 'wp:nodes', '-inf', before, 'LIMIT', 0, arg.limit)
  for _, node in ipairs(silent) do redis.call('ZREM', 'wp:nodes', node) end
  return {'ok', deleted, silent}
end

redis.register_function{function_name = 'audit_nodes_v1', callback = audit_nodes, flags = {'allow-oom'}}
