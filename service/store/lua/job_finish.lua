-- job_finish_v1: a run of a job is over: leave its report, and give the lease back.
--
-- KEYS  none (one server)
-- ARGV  1: msgpack {epoch, tag (the job's), job, token, run, state (done or failed), report (JSON), cap (reports kept)}
-- Returns {'ok'}. Harmless twice: the second finds the run done with this token, and leaves no second report.
-- Errors  fenced, reset; {'superseded', lease} when the lease has expired or is another's. Before anything is written.

local function job_finish(_, args)
  local arg = cmsgpack.unpack(args[1])
  local refusal = fence({[arg.tag] = true}, arg.epoch)
  if refusal then return refusal end
  local job_key, lease_key = key(arg.tag, 'j', arg.job), key(arg.tag, 'l', arg.job)
  local found = redis.call('HMGET', job_key, 'done', 'token')
  if found[1] == '1' and found[2] == arg.token then return {'ok'} end
  if redis.call('HGET', lease_key, 'token') ~= arg.token then return {'superseded', lease_key} end

  redis.call('XADD', 'wp:jobs', 'MAXLEN', '~', arg.cap, '*', 'job', arg.job, 'run', arg.run, 'state', arg.state,
    'report', arg.report)
  redis.call('HSET', job_key, 'done', '1', 'progress', '')
  redis.call('DEL', lease_key)
  return {'ok'}
end

redis.register_function{function_name = 'job_finish_v1', callback = job_finish, flags = {'allow-oom'}}
