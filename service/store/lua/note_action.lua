-- note_action_v1: note what an operator did.
--
-- KEYS  none (one server)
-- ARGV  1: msgpack {fields (map of strings; empty ones left out), cap (lines kept)}
-- Returns {'ok', id of the line}. Twice, there are two lines.
-- Errors  none. Not fenced, and allowed on a full store: so are the actions that have to work there, and what was done
--         is to be known.

local function note_action(_, args)
  local arg = cmsgpack.unpack(args[1])
  local fields = {}
  for name, value in pairs(arg.fields) do
    fields[#fields + 1] = name
    fields[#fields + 1] = value
  end
  return {'ok', redis.call('XADD', 'wp:audit', 'MAXLEN', '~', arg.cap, '*', unpack(fields))}
end

redis.register_function{function_name = 'note_action_v1', callback = note_action, flags = {'allow-oom'}}
