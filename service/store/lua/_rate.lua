-- Shared by the functions that store what users send: composed after _shared.lua.
--
-- How much a user may store, on all nodes together: a bucket of tokens, one for each message. `wp:{p}:t:<user>` is
-- "tokens ms": what was in it at that Redis time; it expires when it would be full again. Read at most once in a call,
-- and written at most once.

local TTL_MAX = 2 ^ 40  -- ms; what the server takes for a time, however slowly a bucket fills
local DUST = 0.000001  -- of a token: what rounding may have taken from a whole one

-- rate: {per_s (tokens a second), burst (tokens in a full bucket), tags (user -> tag of the user's partition)}
local function new_buckets(rate, now) return {rate = rate, now = now, of = {}} end

-- The user's bucket, filled up to now. After a step of the clock back it counts from the time that it is now, and is
-- written so: nobody waits until the clock is where it was.
local function bucket_of(buckets, user)
  local bucket, rate = buckets.of[user], buckets.rate
  if bucket then return bucket end
  local name = key(rate.tags[user], 't', user)
  local tokens, at = string.match(redis.call('GET', name) or '', '^(%S+) (%d+)$')
  tokens, at = tonumber(tokens) or rate.burst, tonumber(at) or buckets.now
  tokens = math.min(rate.burst, tokens + math.max(0, buckets.now - at) / 1000 * rate.per_s)
  bucket = {name = name, tokens = tokens, is_changed = at > buckets.now}
  buckets.of[user] = bucket
  return bucket
end

-- How many ms until the user may store a message: 0 for now. Counts from 1 up, for a client that counts in whole ones.
local function wait_ms(buckets, user)
  local missing = 1 - bucket_of(buckets, user).tokens
  return missing <= DUST and 0 or math.max(1, math.ceil(missing / buckets.rate.per_s * 1000))
end

local function take_token(buckets, user)
  local bucket = bucket_of(buckets, user)
  bucket.tokens, bucket.is_changed = math.max(0, bucket.tokens - 1), true
end

-- Writes what has changed. A bucket means little after a restart: it costs no disk and no replica.
local function keep_buckets(buckets)
  redis.set_repl(redis.REPL_NONE)
  for _, bucket in pairs(buckets.of) do
    if bucket.is_changed then
      local full_ms = math.ceil((buckets.rate.burst - bucket.tokens) / buckets.rate.per_s * 1000)
      local text = string.format('%.9f %.0f', bucket.tokens, buckets.now)
      redis.call('SET', bucket.name, text, 'PX', string.format('%.0f', math.max(1, math.min(full_ms, TTL_MAX))))
    end
  end
  redis.set_repl(redis.REPL_ALL)
end
