-- redact_v3: take away the body of a message, in both inboxes when it is a direct one. Its number stays.
--
-- KEYS  none (one server)
-- ARGV  1: msgpack {epoch, tag, stream, id, by, only_sender (boolean: refuse unless the message is from `by`),
--       other, other_tag (the inbox where the other copy of a direct message lies, '' if none), mailbox_cap (entries)}
-- Returns {'ok', id of the `redacted` entry in `stream`, 1}, or {'ok', id, 0} when it was redacted before
-- Errors  fenced, reset, not_found (no message, or at or below the floor), not_allowed. All before anything is
--         written. Per copy: the entry is deleted, a tombstone is kept, and a `redacted` entry is appended.

local STEP = 32            -- entries read at a time
local SEARCH_MAX = 1024    -- entries looked at for the sender's copy, in either search
local SEARCH_MS = 5000     -- both copies have the same ms, unless the server's clock went back in between

local function as_entry(found)
  local entry = {}
  for i = 1, #found[2], 2 do entry[found[2][i]] = found[2][i + 1] end
  return entry
end

local function read(name, id)
  local found = redis.call('XRANGE', name, id, id)[1]
  return found and as_entry(found)
end

-- The id of the sender's copy of the recipient's entry `id`, nil when it is not there any more.
local function find_copy(name, id)
  local ms = split(id)
  for _, reach in ipairs({0, SEARCH_MS}) do
    local from, to = string.format('%.0f', math.max(ms - reach, 0)), string.format('%.0f', ms + reach)
    for _ = 1, SEARCH_MAX / STEP do
      local step = redis.call('XRANGE', name, from, to, 'COUNT', STEP)
      for _, found in ipairs(step) do
        if as_entry(found).r == id then return found[1] end
      end
      if #step < STEP then break end
      from = '(' .. step[#step][1]
    end
  end
end

-- Keeps what `measure` has measured in step: an entry up to there no longer counts.
local function take_off(name, id, entry)
  local measured = redis.call('HMGET', name, 'upto', 'bytes')
  if not measured[1] or is_above(id, measured[1]) then return end
  local size = 0
  for field, value in pairs(entry) do size = size + #field + #value end
  redis.call('HSET', name, 'bytes', string.format('%.0f', math.max(0, tonumber(measured[2]) - size)))
end

local function redact(_, args)
  local arg = cmsgpack.unpack(args[1])
  local tags = {[arg.tag] = true}
  if arg.other ~= '' then tags[arg.other_tag] = true end
  local refusal = fence(tags, arg.epoch)
  if refusal then return refusal end

  local here = state(arg.tag, arg.stream)
  if not is_above(arg.id, here.floor) then return {'not_found'} end
  local _, n = split(arg.id)
  local tombstone = redis.call('HGET', key(arg.tag, 'z', arg.stream), string.format('%.0f', n))
  if tombstone then
    local earlier = cjson.decode(tombstone)
    if earlier.id ~= arg.id then return {'not_found'} end
    if arg.only_sender and earlier.sender ~= arg.by then return {'not_allowed'} end
    return {'ok', arg.id, 0}
  end
  local message = read(here.key, arg.id)
  if not message or message.t ~= 'message' then return {'not_found'} end
  if arg.only_sender and message.f ~= arg.by then return {'not_allowed'} end

  local copies = {{s = here, tag = arg.tag, id = arg.id, entry = message}}
  if arg.other ~= '' then
    local there = state(arg.other_tag, arg.other)
    local id = message.r or find_copy(there.key, arg.id)
    local copy = id and read(there.key, id)
    if copy then copies[2] = {s = there, tag = arg.other_tag, id = id, entry = copy} end
  end

  local now, post = now_ms(), new_post('')
  for _, copy in ipairs(copies) do
    local _, number = split(copy.id)
    redis.call('XDEL', copy.s.key, copy.id)
    take_off(key(copy.tag, 'b', copy.s.name), copy.id, copy.entry)
    redis.call('HSET', key(copy.tag, 'z', copy.s.name), string.format('%.0f', number), cjson.encode({
      id = copy.id, by = arg.by, at = now, sender = message.f or '', to = message.o or '', mid = message.i or '',
    }))
    copy.told = append(copy.s, now, {'t', 'redacted', 'f', arg.by, 'o', copy.s.name, 'x', copy.id})
    deliver(post, copy.s, nil, 0, 0, content('redacted', arg.by, copy.s.name, '', '', copy.id, ''))
  end
  hand_over(post, arg.mailbox_cap)
  return {'ok', copies[1].told, 1}
end

redis.register_function{function_name = 'redact_v3', callback = redact, flags = {'allow-oom'}}
