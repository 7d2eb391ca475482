-- reconcile_v2: a node tells a partition of a new server which ids it knows to have been given out.
--
-- KEYS  none (one server)
-- ARGV  1: msgpack {epoch, tag, node, live (names of the live nodes), final (boolean: this node's last chunk),
--       wait_ms, is_late (boolean: the node worked on another server, perhaps while others went on here), streams:
--       list of {stream, id (given out for certain)}}
-- Returns {'ok', 'open' or 'waiting'}. A head that is lower is raised to the id, and the stretch is noted as lost
--         in the ledger; heads are never lowered. The partition opens (its fence names this server) when all live
--         nodes have sent their last chunk, or `wait_ms` after the first call. Harmless twice, late, and when open.
-- Errors  reset; fenced only when the epoch differs. Both before anything is written.

local function reconcile(_, args)
  local arg = cmsgpack.unpack(args[1])
  local e_key = fence_key(arg.tag)
  local found = redis.call('HMGET', e_key, 'epoch', 'run')
  if not found[1] then return {'reset'} end
  if found[1] ~= arg.epoch then return {'fenced', found[1]} end
  local run, now = run_id(), now_ms()

  -- Others have opened the partition, and may have written since: the ids of this node are of a branch that was lost.
  -- The head is raised to an id that nobody was given, so that no offset of that branch looks like one of this history.
  local is_fork = arg.is_late and found[2] == run

  local function raise(stream)
    local head, _, lost = bounds(arg.tag, stream.stream)
    if not is_above(stream.id, head) then return end
    local _, head_n = split(head)
    local ms, n = split(stream.id)
    -- Never a lower number, not even for an id of a later millisecond.
    local raised = join_id(is_fork and math.max(now, ms + 1) or ms, math.max(n, head_n))
    local hash = key(arg.tag, 'h', stream.stream)
    if n > head_n then
      note_removal(key(arg.tag, 'x', stream.stream), {
        after = head, to = raised, count = n - head_n, kind = 'lost', policy = is_fork and 'fork' or '',
        limit = '', at = now, run = run,
      })
      if is_above(raised, lost) then redis.call('HSET', hash, 'lost', raised) end
    end
    redis.call('HSET', hash, 'head', raised)
  end

  for _, stream in ipairs(arg.streams) do pcall(raise, stream) end
  if found[2] == run then return {'ok', 'open'} end

  redis.call('HSETNX', e_key, 'since:' .. run, string.format('%.0f', now))
  if arg.final then redis.call('HSET', e_key, 'done:' .. run .. ':' .. arg.node, '1') end
  local is_complete = arg.final
  for _, node in ipairs(arg.live) do
    is_complete = is_complete and redis.call('HEXISTS', e_key, 'done:' .. run .. ':' .. node) == 1
  end
  local since = tonumber(redis.call('HGET', e_key, 'since:' .. run))
  if not is_complete and now - since < arg.wait_ms then return {'ok', 'waiting'} end

  redis.call('HSET', e_key, 'run', run)
  for _, field in ipairs(redis.call('HKEYS', e_key)) do
    if string.find(field, ':', 1, true) then redis.call('HDEL', e_key, field) end
  end
  return {'ok', 'open'}
end

redis.register_function{function_name = 'reconcile_v2', callback = reconcile, flags = {'allow-oom'}}
