#!/usr/bin/lsyncd
local here = debug.getinfo(1, "S").source:match("^@(.+)/[^/]+$")
assert(settings("nodaemon") == nil)
settings { "nodaemon", pidfile = "/run/lsyncd.pid" }
sync { default.rsync, source = "/home/" .. os.getenv("DRIFTLESS_TEST_USER"), target = "/mnt/home" }
if settings("nodaemon") then
    sync { default.direct, source = "/srv/x", target = "/mnt/x-" .. (os.getenv("DRIFTLESS_TEST_UNSET") or "none") }
end
print("this goes nowhere", here, os.time(), now())
