-- SPDX-License-Identifier: GPL-3.0-or-later
-- wrk script: each request writes one kv secret of 256 bytes under a new key.
local token = os.getenv("BENCH_TOKEN")
local body = '{"value":"' .. string.rep("x", 244) .. '"}'
local thread_id = 0
function setup(thread)
  thread:set("id", thread_id)
  thread_id = thread_id + 1
end
function init()
  n = 0
  math.randomseed(os.time() + id)
  run = math.random(1, 1000000000)
end
function request()
  n = n + 1
  return wrk.format("PUT", "/v1/kv/b" .. run .. "-" .. id .. "-" .. n, {["X-Vault-Token"] = token}, body)
end
local bad = 0
function response(status)
  if status ~= 204 then bad = bad + 1 end
end
