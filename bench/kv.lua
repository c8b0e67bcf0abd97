-- SPDX-License-Identifier: GPL-3.0-or-later
-- wrk script: PUT under random keys of 1 M, or GET of those that bench_load wrote (its key_of makes the same names).
local bit, ffi = require("bit"), require("ffi")
local get = os.getenv("BENCH_OP") == "get"
local path, bytes = os.getenv("BENCH_PATH"), tonumber(os.getenv("BENCH_BYTES"))
local headers = {["X-Vault-Token"] = os.getenv("BENCH_TOKEN")}
local two = os.getenv("BENCH_VERSION") == "2"
local head, tail = two and '{"data":{"value":"' or '{"value":"', two and '"}}' or '"}'
local body = not get and head .. string.rep("x", bytes - #head - #tail) .. tail or nil
local n = get and 10000 or 1000000

local function key(i)
  local a = ffi.new("uint64_t", i) * 0x9e3779b97f4a7c15ULL
  return bit.tohex(bit.bxor(a, bit.rshift(a, 29)), 16) .. string.format("%08x", i)
end

function init()
  math.randomseed(os.time())
end

function request()
  return wrk.format(get and "GET" or "PUT", path .. key(math.random(0, n - 1)), headers, body)
end
