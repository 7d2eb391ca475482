-- Shared by the functions that trim, plan a trim, or measure: composed after _shared.lua.
--
-- Ids cannot be read without bodies, so entries are read a few at a time, and a step ends after STEP_BYTES of them:
-- that, like its limit of entries, keeps a call to milliseconds.

local STEP = 32
local STEP_BYTES = 524288

-- The size of an entry: names and values of its fields.
local function size_of(entry)
  local size = 0
  for _, value in ipairs(entry[2]) do size = size + #value end
  return size
end

-- Calls visit(entry, size) for entries from `from` (an XRANGE bound) up to `upto`, oldest first, until it answers
-- false. Returns why it ended: 'visitor', 'step' (enough for one call), 'range' (there are no more).
local function walk(name, from, upto, limit, visit)
  local count, bytes = 0, 0
  while count < limit do
    local wanted = math.min(STEP, limit - count)
    local found = redis.call('XRANGE', name, from, upto, 'COUNT', wanted)
    for _, entry in ipairs(found) do
      local size = size_of(entry)
      if visit(entry, size) == false then return 'visitor' end
      count, bytes = count + 1, bytes + size
      if bytes >= STEP_BYTES then return 'step' end
      from = '(' .. entry[1]
    end
    if #found < wanted then return 'range' end
  end
  return 'step'
end

-- How far an inbox may go: as far as `upto`, or less where an active device has not acknowledged so far. Answers too
-- whether that keeps any entry. `hold` is {user, upto (older entries are not held), idle_before (ms)} or nil.
local function unless_held(arg, upto)
  local hold, held = arg.hold, upto
  if not hold then return upto, false end
  local devices = redis.call('HGETALL', key(arg.tag, 'd', hold.user))
  for i = 1, #devices, 2 do
    local is_read, device = pcall(cjson.decode, devices[i + 1])
    local last = is_read and type(device) == 'table' and tonumber(device.last)
    if not last or last >= hold.idle_before then
      local stored = redis.call('HGET', key(arg.tag, 'o', hold.user .. '/' .. devices[i]), arg.stream)
      -- An offset of another epoch may mean anything: it counts as the very beginning.
      local at, epoch = string.match(stored or '', '^(%d+%-%d+) (%S+)$')
      local offset = epoch == arg.epoch and at or '0-0'
      if is_above(held, offset) then held = offset end
    end
  end
  if is_above(hold.upto, held) then held = is_above(upto, hold.upto) and hold.upto or upto end
  if held == upto then return upto, false end
  return held, #redis.call('XRANGE', key(arg.tag, 's', arg.stream), '(' .. held, upto, 'COUNT', 1) == 1
end

-- The oldest entries that go in this step: {last (id, nil if none), count, bytes, ended}. They lie above `after`, as
-- far as `upto`, at most `limit`; `keep` of the `length` entries above `after` stay; with `over` (bytes) no more go
-- than it takes to remove so many. `ended` is 'range', 'kept' (a bound was reached) or 'step' (there may be more).
local function oldest(name, after, upto, limit, length, keep, over)
  local found = {count = 0, bytes = 0}
  local spare = keep > 0 and math.max(0, length - keep) or math.huge
  if spare == 0 or (over and over <= 0) then
    found.ended = 'kept'
    return found
  end
  local ended = walk(name, after == '' and '-' or '(' .. after, upto, math.min(limit, spare), function(entry, size)
    if over and found.bytes >= over then return false end
    found.last, found.count, found.bytes = entry[1], found.count + 1, found.bytes + size
  end)
  local is_enough = ended == 'visitor' or found.count >= spare or (over and found.bytes >= over)
  found.ended = ended == 'range' and 'range' or is_enough and 'kept' or 'step'
  return found
end
