-- Shared by the functions that store what users send: composed after _shared.lua.
--
-- The keys of messages: what was stored under a key is known for a key window at least, in `wp:{p}:k:<bucket>`. A line
-- is "id body-digest copy-id".

-- window: seconds. `of`: digest of (to, sender, key) -> line, as read and as written by this call.
local function new_known(window, now) return {window = window, now = now, of = {}, numbers = {}, expiring = {}} end

local function known_key(tag, number) return key(tag, 'k', string.format('%.0f', number)) end

-- Reads what is known of a key, by the time of the stream, which never goes back: after a step of the server's clock a
-- repeat is still known.
local function read_known(known, tag, stream_ms, name)
  local number = math.floor(math.max(known.now, stream_ms) / 1000 / known.window)
  known.numbers[name] = number
  known.of[name] = known.of[name] or redis.call('HGET', known_key(tag, number), name)
    or redis.call('HGET', known_key(tag, number - 1), name) or nil
end

local function remember(known, tag, name, line)
  local bucket = known_key(tag, known.numbers[name])
  known.of[name] = line
  redis.call('HSET', bucket, name, line)
  if not known.expiring[bucket] then redis.call('EXPIRE', bucket, 2 * known.window + 60) end
  known.expiring[bucket] = true
end
