-- Shared by the functions that read history: composed after _shared.lua. Writes nothing.
--
-- A range is {low (id, excluded), high (id, included)}.

local STEP = 32                -- entries read at a time: a page of large bodies is not read whole only to be cut

local function number_of(id) return (select(2, split(id))) end

local function below(id)  -- a bound just below an entry
  local ms, n = split(id)
  return join_id(ms, n - 1)
end

-- Adds to `found` what was redacted with a number in `first` .. `last` (in that order, up or down), at most `most`.
-- Returns the id of the last one when that was not all.
local function read_redactions(found, name, first, last, most)
  local step, span, count = first <= last and 1 or -1, math.abs(last - first) + 1, 0
  if redis.call('HLEN', name) <= ARGS_MAX then
    local all = redis.call('HGETALL', name)
    for i = 1, #all, 2 do
      local n = tonumber(all[i])
      if n and n >= math.min(first, last) and n <= math.max(first, last) then found[#found + 1] = all[i + 1] end
    end
    return nil
  end
  for done = 0, span - 1, ARGS_MAX do
    local numbers = {}
    for i = done, math.min(done + ARGS_MAX, span) - 1 do
      numbers[#numbers + 1] = string.format('%.0f', first + step * i)
    end
    for i, line in ipairs(redis.call('HMGET', name, unpack(numbers))) do
      if line then
        found[#found + 1], count = line, count + 1
        local id = string.match(line, '"id":"(%d+%-%d+)"')
        if count >= most and id and done + i < span then return id end
      end
    end
  end
end

-- Ledger lines that touch what lies from `low` up to `high`.
local function read_ledger(name, low, high)
  local function is_wanted(line)
    local removal = cjson.decode(line)
    return not is_above(low, removal.to) and not is_above(removal.after, high)
  end
  local found = {}
  for _, line in ipairs(redis.call('LRANGE', name, 0, -1)) do
    local is_read, wanted = pcall(is_wanted, line)
    if is_read and wanted then found[#found + 1] = line end
  end
  return found
end

-- The id that number `n` has or would have: entries below it have lower numbers, those above it higher ones. Ids rise
-- in ms and in n together, so the last millisecond whose first entry has no higher number is looked for by halving.
local function find_number(name, n, floor, high)
  local low, floor_n = split(floor)  -- a number above the floor has no earlier millisecond
  if n <= floor_n then return n == floor_n and floor or join_id(0, n) end
  while low < high do
    local middle = math.floor((low + high + 1) / 2)
    local entry = redis.call('XRANGE', name, string.format('%.0f', middle), '+', 'COUNT', 1)[1]
    if entry and number_of(entry[1]) <= n then low = middle else high = middle - 1 end
  end
  return join_id(low, n)
end

-- Where a stream is split: at an id, at a number, or at the last entry up to a millisecond; at most at the head.
local function find_split(name, arg, floor, head, ranges)
  local at, head_ms, head_n = arg.at, split(head)
  if arg.by == 'id' then return is_above(at, head) and head or at end
  if at >= (arg.by == 'n' and head_n or head_ms) then return head end
  if arg.by == 'ms' then
    local entry = redis.call('XREVRANGE', name, string.format('%.0f', at), '-', 'COUNT', 1)[1]
    if entry then return entry[1] end
    -- Among what was trimmed nobody knows the place of a time: all of it is told as gone, whichever way one looks.
    return (arg.back > 0 or split(floor) <= at) and floor or '0-0'
  end
  -- The ms of a number whose entry is gone is made up, but not below that of a bound of membership up to there.
  local ms, n = split(find_number(name, at, floor, head_ms))
  for _, range in ipairs(ranges) do
    for _, bound in ipairs(range) do
      local bound_ms, bound_n = split(bound)
      if bound_n <= n then ms = math.max(ms, bound_ms) end
    end
  end
  return join_id(ms, n)
end

-- What tells an id of another history: the last entry up to it, the next one, the redaction of its number (or nil).
local function neighbours_of(name, id, redactions)
  local before = redis.call('XREVRANGE', name, id, '-', 'COUNT', 1)[1]
  local after = redis.call('XRANGE', name, '(' .. id, '+', 'COUNT', 1)[1]
  local redaction = redis.call('HGET', redactions, string.format('%.0f', number_of(id)))
  return {before and before[1] or false, after and after[1] or false, redaction}
end

local function fields_of(entry)  -- by name, and the bytes of their values
  local fields, size = {}, 0
  for i = 1, #entry[2], 2 do
    fields[entry[2][i]] = entry[2][i + 1]
    size = size + #entry[2][i + 1]
  end
  return fields, size
end

-- The ranges that are the user's, oldest first. The entry that a stretch begins at is the user's when it is the own
-- `joined`; where joining is not announced it is somebody else's.
local function ranges_of(name, record, user, head)
  if not record then return {{'0-0', head}} end
  local ranges = {}
  for joined, left in string.gmatch(record, '(%d+%-%d+),([%d%-]*)') do
    local first = redis.call('XRANGE', name, joined, joined)[1]
    local fields = first and fields_of(first) or {}
    local is_own = fields.t == 'joined' and fields.f == user
    ranges[#ranges + 1] = {is_own and below(joined) or joined, left ~= '' and left or head}
  end
  return ranges
end
