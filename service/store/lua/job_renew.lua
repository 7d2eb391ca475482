-- job_renew_v1: keep the lease of a job for longer, and save how far the run has come; or give the lease back.
--
-- KEYS  none (one server)
-- ARGV  1: msgpack {epoch, tag (the job's), job, token, ttl_ms (0: give it back, for whoever comes next), progress}
-- Returns {'ok'}. Harmless twice. A late one saves an older progress of the same holder: the next one mends it, and a
--         run that is resumed further back does again what is done, which changes nothing.
-- Errors  fenced, reset; {'superseded', lease} when the lease has expired or is another's. Before anything is written.

local function job_renew(_, args)
  local arg = cmsgpack.unpack(args[1])
  local refusal = fence({[arg.tag] = true}, arg.epoch)
  if refusal then return refusal end
  local lease_key = key(arg.tag, 'l', arg.job)
  if redis.call('HGET', lease_key, 'token') ~= arg.token then return {'superseded', lease_key} end

  redis.call('HSET', key(arg.tag, 'j', arg.job), 'progress', arg.progress)
  if arg.ttl_ms == 0 then redis.call('DEL', lease_key) else redis.call('PEXPIRE', lease_key, arg.ttl_ms) end
  return {'ok'}
end

redis.register_function{function_name = 'job_renew_v1', callback = job_renew, flags = {'allow-oom'}}
