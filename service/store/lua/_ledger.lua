-- Shared by what removes entries run by run: composed after _shared.lua.
--
-- A ledger has a line for each run and cause. A job that runs every five minutes would push lines of a week ago out of
-- it: beyond FINE_MAX the two oldest become one, where they have the same cause.

local FINE_MAX = 100  -- lines of a ledger that are kept as they are; beyond, the oldest are told by cause

local function read_line(ledger, at)
  local is_read, line = pcall(cjson.decode, redis.call('LINDEX', ledger, at) or '')
  return is_read and type(line) == 'table' and line or nil
end

-- Puts what an earlier line says into the one that goes on where it ends, if both have the same cause. Never lines of
-- what was lost: their ends are ids of their own (see `contradicts` in core/paging.py).
local function join_lines(earlier, line)
  local is_same = earlier and line and earlier.to == line.after and line.kind == 'trimmed'
  for _, name in ipairs({'kind', 'policy', 'limit'}) do is_same = is_same and earlier[name] == line[name] end
  if is_same then line.after, line.count = earlier.after, earlier.count + line.count end
  return is_same
end

-- Notes a removal. Successive steps of one run share a line.
local function note_in_run(ledger, line)
  local newest = read_line(ledger, -1)
  if newest and line.run ~= '' and newest.run == line.run and join_lines(newest, line) then
    redis.call('LSET', ledger, -1, cjson.encode(line))
    return
  end
  note_removal(ledger, line)
  if redis.call('LLEN', ledger) <= FINE_MAX then return end
  local second = read_line(ledger, 1)
  if join_lines(read_line(ledger, 0), second) then
    redis.call('LPOP', ledger)
    redis.call('LSET', ledger, 0, cjson.encode(second))
  end
end
