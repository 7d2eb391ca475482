-- job_take_v1: take the lease of a scheduled job, and with it a run: a new one, or one that was left unfinished.
--
-- KEYS  none (one server)
-- ARGV  1: msgpack {epoch, tag (the job's), job, slot (begin of the last run as the caller saw it, '' for none),
--       worker, ttl_ms (of the lease)}
-- Returns {'ok', 'taken', token, run, progress (of the run that is resumed, '' for a new one)}
--         {'ok', 'held'}   another worker is at it
--         {'ok', 'done'}   a run has begun since the caller looked: that slot is somebody's already
--         {'ok', 'noted'}  the job was never seen before; its schedule counts from now on
--         A repeat after a lost answer finds the lease held, by itself: the run is resumed when the lease has expired.
-- Errors  fenced, reset, before anything is written.
--
-- The token is Redis time in us, above every token that this job has had, also when the clock was set back: whoever
-- holds an earlier one is refused by every function that writes.

local function job_take(_, args)
  local arg = cmsgpack.unpack(args[1])
  local refusal = fence({[arg.tag] = true}, arg.epoch)
  if refusal then return refusal end

  local job_key, lease_key = key(arg.tag, 'j', arg.job), key(arg.tag, 'l', arg.job)
  if redis.call('EXISTS', lease_key) == 1 then
    -- The server's clock was set back, and the lease would last until it is there again. Who has it renews it.
    local ttl = tonumber(redis.call('HGET', lease_key, 'ttl')) or arg.ttl_ms
    if redis.call('PTTL', lease_key) > ttl then redis.call('PEXPIRE', lease_key, ttl) end
    return {'ok', 'held'}
  end
  local found = redis.call('HMGET', job_key, 'slot', 'run', 'done', 'token', 'progress')
  local slot, run, progress = found[1], found[2], found[5] or ''
  local now = now_ms()
  if not slot then
    redis.call('HSET', job_key, 'slot', string.format('%.0f', now), 'done', '1')
    return {'ok', 'noted'}
  end
  local is_new = found[3] ~= '0'
  if is_new and slot ~= arg.slot then return {'ok', 'done'} end

  local time = redis.call('TIME')
  local us = tonumber(time[1]) * 1000000 + tonumber(time[2])
  local token = string.format('%.0f', math.max(us, (tonumber(found[4]) or 0) + 1))
  if is_new then
    run, progress = arg.job .. '-' .. token, ''
    -- Never the slot that others may still hold for the last one.
    local begun = string.format('%.0f', now)
    if begun == slot then begun = string.format('%.0f', now + 1) end
    redis.call('HSET', job_key, 'slot', begun, 'run', run, 'done', '0', 'progress', '')
  end
  redis.call('HSET', job_key, 'token', token)
  redis.call('HSET', lease_key, 'token', token, 'worker', arg.worker, 'ttl', string.format('%.0f', arg.ttl_ms))
  redis.call('PEXPIRE', lease_key, arg.ttl_ms)
  return {'ok', 'taken', token, run, progress}
end

redis.register_function{function_name = 'job_take_v1', callback = job_take, flags = {'allow-oom'}}
