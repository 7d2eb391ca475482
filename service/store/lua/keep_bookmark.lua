-- keep_bookmark_v1: keep the base of bookmarks of a device, and forget bases that nobody can come back with any more.
--
-- KEYS  none (one server)
-- ARGV  1: msgpack {epoch, user, tag (the user's), device, name (of the base, new), origin (of the base that the client
--       has until it hears of this one, '' if none), base (text), forget (list of names), ttl_ms, kept_max}
-- Returns {'ok'}. Above kept_max the oldest go; the one that was gone on from counts as new. Harmless twice, and late:
--         what is to be forgotten was chosen before the call.
-- Errors  fenced, reset, before anything is written.

local function keep_bookmark(_, args)
  local arg = cmsgpack.unpack(args[1])
  local refusal = fence({[arg.tag] = true}, arg.epoch)
  if refusal then return refusal end

  local bases_key = key(arg.tag, 'v', arg.user .. '/' .. arg.device)
  local forgotten, gone, rows, origin_row = {}, {}, {}, nil
  for _, name in ipairs(arg.forget) do forgotten[name] = true end
  for name, origin in string.gmatch(redis.call('HGET', bases_key, '/order') or '', '(%w+)<(%w*)') do
    local row = {name, name .. '<' .. origin}
    if forgotten[name] then gone[#gone + 1] = name
    elseif name == arg.origin then origin_row = row
    elseif name ~= arg.name then rows[#rows + 1] = row end
  end
  if origin_row then rows[#rows + 1] = origin_row end
  rows[#rows + 1] = {arg.name, arg.name .. '<' .. arg.origin}
  while #rows > arg.kept_max do gone[#gone + 1] = table.remove(rows, 1)[1] end

  local order = {}
  for _, row in ipairs(rows) do order[#order + 1] = row[2] end
  redis.call('HSET', bases_key, '/order', table.concat(order, ' '), arg.name, arg.base)
  in_chunks('HDEL', bases_key, gone)
  redis.call('PEXPIRE', bases_key, arg.ttl_ms)
  return {'ok'}
end

redis.register_function{function_name = 'keep_bookmark_v1', callback = keep_bookmark, flags = {'allow-oom'}}
