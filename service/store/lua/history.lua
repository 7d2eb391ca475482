-- history_v2: entries of a stream around a split, as far as they are the user's. Writes nothing.
--
-- KEYS  none (one server)
-- ARGV  1: msgpack {epoch, tag, stream, user ('': a server key asks, for all of a group or of `all`), by ('id', 'n',
--       'ms'), at (id; number; ms: where the split is), check (id of the anchor, '' if none), back (entries at or below
--       the split), most (entries in all), is_forward (boolean: also above the split), max_bytes (of field values; one
--       entry each way always comes), partner (a user: of others only the ids come, '' for all), looked_max (entries
--       looked at each way)}
-- Returns {'ok', now (ms), head, floor, split (id), neighbours of `check` (see _reading), entries {id, fields}
--         (oldest first; fields nil: another's), reached below, reached above (ids where it stopped; nil: all was
--         read), redactions (JSON), ledger lines (JSON) that touch what was read, membership record (groups only)}
-- Errors  fenced, reset, not_member (of a group that the user never was in, there or not), no_group (to a server key)
--
-- What is the user's: an inbox or `all` as a whole; of a group the stretches of membership, each with its own `joined`
-- entry. Costs: some 40 entries to find a number, then what is looked at, in steps.

local LOOKED_BYTES_MAX = 4194304  -- of entries looked at for a partner: a few milliseconds

-- One way from the split: up or down.
local function walk(arg, ranges, split_at, floor, is_up, most, max_bytes)
  local name, redacted = key(arg.tag, 's', arg.stream), key(arg.tag, 'z', arg.stream)
  local found = {entries = {}, redactions = {}, shown = 0, bytes = 0}
  local looked, looked_bytes = 0, 0

  -- Whether the entry was taken; if not, the walk ends before it.
  local function take(entry)
    local fields, size = fields_of(entry)
    local is_wanted = arg.partner == '' or (fields.t == 'message' and (
      (fields.f == arg.partner and fields.o == arg.stream) or
      (fields.f == arg.user and fields.o == 'user:' .. arg.partner)))
    if looked >= arg.looked_max or (looked > 0 and looked_bytes + size > LOOKED_BYTES_MAX) then return false end
    if is_wanted then
      if found.shown >= most or (found.shown > 0 and found.bytes + size > max_bytes) then return false end
      found.shown, found.bytes = found.shown + 1, found.bytes + size
    end
    looked, looked_bytes = looked + 1, looked_bytes + size
    found.entries[#found.entries + 1] = {entry[1], is_wanted and entry[2] or false}
    return true
  end

  -- Reads a range; returns where the walk ends within it, nil when it does not.
  local function read(low, high)
    local from, to, last = is_up and '(' .. low or high, is_up and high or '(' .. low, nil
    while true do
      local step = redis.call(is_up and 'XRANGE' or 'XREVRANGE', name, from, to, 'COUNT', STEP)
      for _, entry in ipairs(step) do
        if not take(entry) then
          if is_up then return last or low end
          return last and below(last) or high
        end
        last = entry[1]
      end
      if #step < STEP then return nil end
      from = '(' .. last
    end
  end

  for i = is_up and 1 or #ranges, is_up and #ranges or 1, is_up and 1 or -1 do
    local low, high = ranges[i][1], ranges[i][2]
    if is_up and is_above(split_at, low) then low = split_at end
    if not is_up and is_above(high, split_at) then high = split_at end
    if is_above(high, low) then
      found.reached = read(low, high)
      if is_up then high = found.reached or high else low = found.reached or low end
      local first, final = math.max(number_of(low), number_of(floor)) + 1, number_of(high)
      if first <= final then
        if not is_up then first, final = final, first end
        local cut = read_redactions(found.redactions, redacted, first, final, most)
        if cut then found.reached = is_up and cut or below(cut) end
      end
      if found.reached then break end
    end
  end
  return found
end

local function history(_, args)
  local arg = cmsgpack.unpack(args[1])
  local refusal = fence({[arg.tag] = true}, arg.epoch)
  if refusal then return refusal end

  local name, group = key(arg.tag, 's', arg.stream), string.match(arg.stream, '^group:(.*)$')
  local record = false
  if group and arg.user == '' then
    if read_group({group = group, group_tag = arg.tag}).is_new then return {'no_group'} end
  elseif group then
    record = redis.call('HGET', key(arg.tag, 'g', group), arg.user)
    if not record then return {'not_member'} end
  end
  local head, floor, lost = bounds(arg.tag, arg.stream)

  local ranges = ranges_of(name, record, arg.user, head)
  local at = find_split(name, arg, floor, head, ranges)
  local neighbours = arg.check ~= '' and neighbours_of(name, arg.check, key(arg.tag, 'z', arg.stream)) or {}

  local nothing = {entries = {}, redactions = {}, shown = 0, bytes = 0}
  local back, forward = nothing, nothing
  if arg.back > 0 then
    local share = arg.is_forward and math.floor(arg.max_bytes / 2) or arg.max_bytes
    back = walk(arg, ranges, at, floor, false, arg.back, share)
  end
  if arg.is_forward then
    forward = walk(arg, ranges, at, floor, true, arg.most - back.shown, arg.max_bytes - back.bytes)
  end

  local entries, redactions = {}, back.redactions
  for i = #back.entries, 1, -1 do entries[#entries + 1] = back.entries[i] end
  for _, entry in ipairs(forward.entries) do entries[#entries + 1] = entry end
  for _, line in ipairs(forward.redactions) do redactions[#redactions + 1] = line end

  -- No line reaches above both the floor and the highest lost id: who looks at what is new costs nothing.
  local low, high, ledger = back.reached or (arg.back > 0 and '0-0' or at), forward.reached or head, {}
  if is_above(floor, low) or is_above(lost, low) then
    ledger = read_ledger(key(arg.tag, 'x', arg.stream), low, arg.is_forward and high or at)
  end
  return {'ok', now_ms(), head, floor, at, neighbours, entries, back.reached or false, forward.reached or false,
    redactions, ledger, record or false}
end

redis.register_function{function_name = 'history_v2', callback = history, flags = {'no-writes'}}
