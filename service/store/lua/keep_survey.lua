-- keep_survey_v1: keep one part of what the job `survey` found, in place of what it found before.
--
-- KEYS  none (one server)
-- ARGV  1: msgpack {epoch, tag (the job's), part (name of a field), value (JSON), lease, token}
-- Returns {'ok'}. Harmless twice; late, it is refused.
-- Errors  fenced, reset; {'superseded', job's lease}. All before anything is written.
--
-- The value is bounded by who makes it: so many rows, however many streams there are. Allowed on a full store: it
-- takes the place of one of that size, and says what fills the store.

local function keep_survey(_, args)
  local arg = cmsgpack.unpack(args[1])
  local refusal = fence({[arg.tag] = true}, arg.epoch)
  if refusal then return refusal end
  if redis.call('HGET', arg.lease, 'token') ~= arg.token then return {'superseded', arg.lease} end

  redis.call('HSET', 'wp:survey', arg.part, arg.value)
  return {'ok'}
end

redis.register_function{function_name = 'keep_survey_v1', callback = keep_survey, flags = {'allow-oom'}}
