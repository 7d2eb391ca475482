-- Shared by every function: composed in front of each file, so each library carries its own copy.
--
-- Ids are "<ms>-<n>" and compared as pairs of numbers. Keys are built here from a partition's tag and a name:
-- on one server none is declared; a cluster will need them declared, and one partition a call.
-- Every reply begins with a status: ok, fenced, reset, gone, superseded, or a code of the error table.

local LEDGER_MAX = 1000  -- lines; a page may have to read them all
local ARGS_MAX = 1000    -- values unpacked into one command: Lua's stack holds about 8,000

local function key(tag, kind, name) return 'wp:{' .. tag .. '}:' .. kind .. ':' .. name end
local function fence_key(tag) return 'wp:{' .. tag .. '}:e' end

-- This server's run id. A process has one for life, and another process loads the library anew.
local server_run
local function run_id()
  if not server_run then server_run = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)') end
  return server_run
end

-- The refusal when one of the partitions (tag -> true) is not open for a caller at this epoch, else nil.
local function fence(tags, epoch)
  for tag in pairs(tags) do
    local found = redis.call('HMGET', fence_key(tag), 'epoch', 'run')
    if not found[1] then return {'reset'} end
    if found[1] ~= epoch or found[2] ~= run_id() then return {'fenced', found[1]} end
  end
end

-- Redis time in milliseconds; stands still during a call.
local function now_ms()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

local function split(id)
  local ms, n = string.match(id, '^(%d+)-(%d+)$')
  return tonumber(ms), tonumber(n)
end

local function join_id(ms, n) return string.format('%.0f-%.0f', ms, n) end

local function is_above(a, b)
  local a_ms, a_n = split(a)
  local b_ms, b_n = split(b)
  return a_ms > b_ms or (a_ms == b_ms and a_n > b_n)
end

-- Stands in for a head that is missing: a stream remembers the last id it was given, even when it is empty.
local function last_given(stream_key)
  if redis.call('EXISTS', stream_key) == 0 then return '0-0' end
  local info = redis.call('XINFO', 'STREAM', stream_key)
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then return info[i + 1] end
  end
end

-- Head, floor and highest lost id of a stream.
local function bounds(tag, stream)
  local found = redis.call('HMGET', key(tag, 'h', stream), 'head', 'floor', 'lost')
  return found[1] or last_given(key(tag, 's', stream)), found[2] or '0-0', found[3] or '0-0'
end

-- Whether a membership record, "role|joined,left;joined,", is one of a member now: its last stretch is open.
local function is_member(record) return record and string.sub(record, -1) == ',' end

-- One command with any number of values, in several calls: HSET (name, value pairs), HDEL.
local function in_chunks(command, name, values)
  for i = 1, #values, ARGS_MAX do
    redis.call(command, name, unpack(values, i, math.min(i + ARGS_MAX - 1, #values)))
  end
end

-- A line of a stream's ledger: what lay above `after` up to `to` is gone.
local function note_removal(ledger, line)
  redis.call('RPUSH', ledger, cjson.encode(line))
  redis.call('LTRIM', ledger, -LEDGER_MAX, -1)
end
