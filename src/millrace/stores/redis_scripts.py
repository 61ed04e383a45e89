"""What must happen in one step on the server, as its scripts. Nothing here talks to a server; see `redis`.

Names of keys that are found on the way are made from prefixes, so all of them must live on one node: the namespace is a
hash tag. Times are the server's own, in microseconds.
"""

from __future__ import annotations

_NOW = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
"""

_FORGET = """
local function forget(raw)
  local about = redis.call('HGET', KEYS[2], raw)
  if not about then return 0 end
  local size, token, count = string.match(about, '^(%d+) (%w*) (%d+)$')
  for i = 0, count - 1 do redis.call('UNLINK', chunks .. token .. ':' .. i) end
  redis.call('HDEL', KEYS[2], raw)
  redis.call('ZREM', KEYS[1], raw)
  redis.call('DECRBY', KEYS[3], size)
  return tonumber(size)
end
"""

PUT = (
    """
local chunks = ARGV[1]
"""
    + _NOW
    + _FORGET
    + """
local said = {}
for i = 4, #KEYS do
  local a = 1 + (i - 4) * 6
  local raw, record, expected = ARGV[a + 1], ARGV[a + 2], ARGV[a + 3]
  local size, token, count = ARGV[a + 4], ARGV[a + 5], tonumber(ARGV[a + 6])
  local there = redis.call('GET', KEYS[i]) or ''
  if there ~= expected then
    said[#said + 1] = there
  else
    local whole = true
    for c = 0, count - 1 do whole = redis.call('EXISTS', chunks .. token .. ':' .. c) == 1 and whole end
    if whole then
      for c = 0, count - 1 do redis.call('PERSIST', chunks .. token .. ':' .. c) end
      forget(raw)
      redis.call('SET', KEYS[i], record)
      redis.call('HSET', KEYS[2], raw, size .. ' ' .. token .. ' ' .. count)
      redis.call('ZADD', KEYS[1], now, raw)
      redis.call('INCRBY', KEYS[3], size)
      said[#said + 1] = ''
    else
      said[#said + 1] = 'lost'
    end
  end
end
return {redis.call('GET', KEYS[3]) or '0', said}
"""
)
"""KEYS: used, about, total, then one key a value. ARGV: prefix of chunks, then for each value its raw key, record, what is
expected to be there ('' for nothing), size, token and count of its chunks. For each '' when it was set, 'lost' when chunks
of it are gone, otherwise what is there."""

TOUCH = (
    _NOW
    + """
for i = 1, #ARGV do redis.call('ZADD', KEYS[1], 'XX', now, ARGV[i]) end
"""
)
"""KEYS: used. ARGV: raw keys that were used."""

PIN = (
    _NOW
    + """
local lease_us = tonumber(ARGV[1])
for i = 3, #ARGV do redis.call('SADD', KEYS[1], ARGV[i]) end
redis.call('ZADD', KEYS[2], now + lease_us, ARGV[2])
return redis.call('PEXPIRE', KEYS[1], math.floor(lease_us / 1000))
"""
)
"""KEYS: the pins of one holder, all holders. ARGV: lease in us, the holder's token, raw keys. 0 when there are no pins:
they had lapsed, and are to be told again."""

EVICT = (
    """
local limit, most, at = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local values, chunks, pins = ARGV[4], ARGV[5], ARGV[6]
"""
    + _NOW
    + _FORGET
    + """
redis.call('ZREMRANGEBYSCORE', KEYS[4], '-inf', now)
local holders = redis.call('ZRANGE', KEYS[4], 0, -1)
local total = tonumber(redis.call('GET', KEYS[3]) or '0')
local found = redis.call('ZRANGE', KEYS[1], at, at + most - 1)
local freed = 0
for _, raw in ipairs(found) do
  if total - freed <= limit then break end
  local pinned = false
  for _, holder in ipairs(holders) do pinned = pinned or redis.call('SISMEMBER', pins .. holder, raw) == 1 end
  if pinned then
    at = at + 1
  else
    redis.call('UNLINK', values .. raw)
    freed = freed + forget(raw)
  end
end
local over = 0
if total - freed <= limit or #found < most then over = 1 end
return {freed, at, over}
"""
)
"""KEYS: used, about, total, holders. ARGV: limit, how many to look at, how many pinned ones were passed, prefixes of values,
chunks and pins. The bytes freed, pinned ones passed, and 1 when that was all."""
