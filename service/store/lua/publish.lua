-- publish_v2: store a batch of messages, in order, and hand each to the mailboxes on its stream's register.
--
-- KEYS  none (one server)
-- ARGV  1: msgpack {epoch, mailbox (the caller's own, '' if none), mailbox_cap (entries), key_window (s),
--       messages: list of {kind, sender, to, tag, own, own_tag (the sender's inbox where a copy is due, else ''),
--       mid, body, device, origin ('' if none), key (digest of to, sender and key, '' if none), digest (of the
--       body), trace}}
-- Returns {'ok', list of {status, id as the sender finds it, id in the stream it was sent to}}; status: ok, dup
--         (stored before under this key), key_reused, not_member, no_group, internal (nothing written), uncertain
--         (something of it written; the same key completes it).
-- Errors  fenced, reset, before anything is written. An error ends one message, never the batch. No allow-oom.

local function publish(_, args)
  local arg = cmsgpack.unpack(args[1])
  local tags = {}
  for _, message in ipairs(arg.messages) do
    tags[message.tag] = true
    if message.own ~= '' then tags[message.own_tag] = true end
  end
  local refusal = fence(tags, arg.epoch)
  if refusal then return refusal end

  local now = now_ms()
  local key_ttl = 2 * arg.key_window + 60
  local states, members, known, expiring = {}, {}, {}, {}

  local function bucket_key(message, number) return key(message.tag, 'k', string.format('%.0f', number)) end

  local function read(message)
    states[message.to] = states[message.to] or state(message.tag, message.to)
    if message.own ~= '' then
      states[message.own] = states[message.own] or state(message.own_tag, message.own)
    end
    if message.kind == 'group' then
      local group = string.sub(message.to, 7)
      local place = message.to .. '/' .. message.sender
      local group_key = key(message.tag, 'g', group)
      members[place] = members[place] or redis.call('HGET', group_key, message.sender)
      if not is_member(members[place]) then
        message.refusal = redis.call('EXISTS', group_key) == 1 and 'not_member' or 'no_group'
      end
    end
    -- The time of the stream, which never goes back: after a step of the server's clock a repeat is still known.
    local head_ms = split(states[message.to].head)
    message.bucket = math.floor(math.max(now, head_ms) / 1000 / arg.key_window)
    if message.key ~= '' and not known[message.key] then
      known[message.key] = redis.call('HGET', bucket_key(message, message.bucket), message.key)
        or redis.call('HGET', bucket_key(message, message.bucket - 1), message.key) or nil
    end
  end

  local function remember(message, id, copy_id)
    if message.key == '' then return end
    local name = bucket_key(message, message.bucket)
    known[message.key] = id .. ' ' .. message.digest .. ' ' .. copy_id
    redis.call('HSET', name, message.key, known[message.key])
    if not expiring[name] then redis.call('EXPIRE', name, key_ttl) end
    expiring[name] = true
  end

  -- Writes what is not yet written of a message: all of it, or, when an earlier attempt got as far as the
  -- recipient's entry `id`, the sender's copy.
  local function store(message, id)
    local to, own = states[message.to], states[message.own]
    local is_whole, copy_id, is_new = true, '', not id
    local entry = {
      t = 'message', f = message.sender, o = message.to, i = message.mid, b = message.body, d = message.device,
      p = message.trace,
    }
    id = id or append(to, now, entry)
    if own then
      entry.r = id
      is_whole, copy_id = pcall(append, own, now, entry)
      if not is_whole then copy_id = '' end
    end
    remember(message, id, copy_id)
    if is_new then deliver(to, id, entry, arg.mailbox_cap, arg.mailbox, own and '' or message.origin) end
    if not is_whole then return {'uncertain', '', ''} end
    if own then deliver(own, copy_id, entry, arg.mailbox_cap, arg.mailbox, message.origin) end
    return {'ok', own and copy_id or id, id}
  end

  local function answer(message)
    if message.refusal then return {message.refusal, '', ''} end
    if not known[message.key] then return store(message) end
    local id, digest, copy_id = string.match(known[message.key], '^(%S+) (%S+) (%S*)$')
    if digest ~= message.digest then return {'key_reused', '', ''} end
    if message.own == '' then return {'dup', id, id} end
    if copy_id == '' then return store(message, id) end
    return {'dup', copy_id, id}
  end

  for _, message in ipairs(arg.messages) do message.is_readable = pcall(read, message) end

  local results = {}
  for i, message in ipairs(arg.messages) do
    local to, own = states[message.to] or {}, states[message.own] or {}
    local head, own_head = to.head, own.head
    local is_done, result = message.is_readable, nil
    if is_done then is_done, result = pcall(answer, message) end
    if not is_done then
      local is_touched = to.head ~= head or own.head ~= own_head
      result = {is_touched and 'uncertain' or 'internal', '', ''}
    end
    results[i] = result
  end
  return {'ok', results}
end

redis.register_function{function_name = 'publish_v2', callback = publish, flags = {}}
