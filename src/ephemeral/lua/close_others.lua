-- Removes every session of a person but one, which is stamped with the new epoch. KEYS[1]: the person's hash.
-- ARGV: now, session id to keep ('' for none), new epoch, longest lifetime in s.
local kept = ARGV[2] ~= '' and redis.call('HGET', KEYS[1], ARGV[2])
local ttl = redis.call('PTTL', KEYS[1])
redis.call('DEL', KEYS[1])
if kept and struct.unpack('B', kept) == 1 then
  local stamped, created, made, idle, absolute = struct.unpack('>I4I6I6I4I4', kept, 3)
  -- Of two acts the later one may come first.
  local epoch = math.max(stamped, tonumber(ARGV[3]))
  if math.min(made + idle * 1000, created + math.min(absolute, tonumber(ARGV[4])) * 1000) > tonumber(ARGV[1]) then
    redis.call('HSET', KEYS[1], ARGV[2], string.sub(kept, 1, 2) .. struct.pack('>I4', epoch) .. string.sub(kept, 7))
    redis.call('PEXPIRE', KEYS[1], ttl)
  end
end
return 1
