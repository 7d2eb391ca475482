-- page_v1: entries of a stream above an offset, with all that belongs to the same moment. Writes nothing.
--
-- KEYS  none (one server)
-- ARGV  1: msgpack {epoch, tag, stream, after (id), users (list; their membership, groups only),
--       max_entries, max_bytes (of field values; the first entry always comes)}
-- Returns {'ok', head, floor, before (last id at or below `after`, nil if none), entries {id, fields},
--         is_last (1: nothing follows up to the head), redactions (JSON), ledger lines (JSON) that touch what
--         lies above `after`, membership records of `users` (nil: never a member)}
-- Errors  fenced, reset

local STEP = 32  -- entries read at a time: a page of large bodies is not read whole only to be cut

-- What was redacted above `low` up to `high`: asked for number by number, or all of it, whichever is less.
local function read_redactions(name, low, high)
  local size = redis.call('HLEN', name)
  local found = {}
  if size == 0 or high <= low then return found end
  if high - low > size then
    local all = redis.call('HGETALL', name)
    for i = 1, #all, 2 do
      local n = tonumber(all[i])
      if n and n > low and n <= high then found[#found + 1] = all[i + 1] end
    end
    return found
  end
  for first = low + 1, high, ARGS_MAX do
    local numbers = {}
    for n = first, math.min(first + ARGS_MAX - 1, high) do numbers[#numbers + 1] = string.format('%.0f', n) end
    for _, line in ipairs(redis.call('HMGET', name, unpack(numbers))) do
      if line then found[#found + 1] = line end
    end
  end
  return found
end

-- Ledger lines that overlap what lies above `after` up to `upto` (nil: all of it).
local function read_ledger(name, after, upto)
  local function is_wanted(line)
    local removal = cjson.decode(line)
    return is_above(removal.to, after) and (not upto or is_above(upto, removal.after))
  end
  local found = {}
  for _, line in ipairs(redis.call('LRANGE', name, 0, -1)) do
    local is_read, wanted = pcall(is_wanted, line)
    if is_read and wanted then found[#found + 1] = line end
  end
  return found
end

local function read_entries(name, after, max_entries, max_bytes)
  local entries, bytes, last = {}, 0, after
  while #entries < max_entries do
    local wanted = math.min(STEP, max_entries - #entries)
    local step = redis.call('XRANGE', name, '(' .. last, '+', 'COUNT', wanted)
    for _, entry in ipairs(step) do
      for i = 2, #entry[2], 2 do bytes = bytes + #entry[2][i] end
      if bytes > max_bytes and #entries > 0 then return entries, last, false end
      entries[#entries + 1] = entry
      last = entry[1]
    end
    if #step < wanted then return entries, last, true end
  end
  return entries, last, #redis.call('XRANGE', name, '(' .. last, '+', 'COUNT', 1) == 0
end

local function page(_, args)
  local arg = cmsgpack.unpack(args[1])
  local refusal = fence({[arg.tag] = true}, arg.epoch)
  if refusal then return refusal end

  local stream_key = key(arg.tag, 's', arg.stream)
  local head, floor, lost = bounds(arg.tag, arg.stream)
  local before = redis.call('XREVRANGE', stream_key, arg.after, '-', 'COUNT', 1)[1]
  local entries, last, is_last = read_entries(stream_key, arg.after, arg.max_entries, arg.max_bytes)

  local _, after_n = split(arg.after)
  local _, floor_n = split(floor)
  local _, last_n = split(is_last and head or last)
  local redactions = read_redactions(key(arg.tag, 'z', arg.stream), math.max(after_n - 1, floor_n), last_n)

  -- No line reaches above both the floor and the highest lost id, so a device that is up to date costs nothing.
  local ledger = {}
  if is_above(floor, arg.after) or is_above(lost, arg.after) then
    ledger = read_ledger(key(arg.tag, 'x', arg.stream), arg.after, not is_last and last or nil)
  end

  local members = {}
  for i = 1, #arg.users, ARGS_MAX do
    local users = {unpack(arg.users, i, math.min(i + ARGS_MAX - 1, #arg.users))}
    local records = redis.call('HMGET', key(arg.tag, 'g', string.sub(arg.stream, 7)), unpack(users))
    for _, record in ipairs(records) do members[#members + 1] = record end
  end
  return {'ok', head, floor, before and before[1] or false, entries, is_last and 1 or 0, redactions, ledger, members}
end

redis.register_function{function_name = 'page_v1', callback = page, flags = {'no-writes'}}
