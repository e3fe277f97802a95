-- Puts a value in the place of the one that was seen. KEYS[1]: its key. ARGV: now, what was seen ('' for nothing), what
-- is to be, when that expires. Both values begin with their expiry; one that expired is nothing. Answers 1 when it was so.
local now, current = tonumber(ARGV[1]), redis.call('GET', KEYS[1])
if current and struct.unpack('>I6', current) <= now then current = false end
if (current or '') ~= ARGV[2] then return 0 end
redis.call('SET', KEYS[1], ARGV[3], 'PX', string.format('%.0f', math.max(ARGV[4] - now, 0) + 3600000))
return 1
