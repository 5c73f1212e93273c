-- What lsyncd 2.2 and 2.3 give to every configuration, as values. `stand_in` makes what would be functions.

local exits_of_rsync = { _merge = false, _verbatim = true, [0] = "ok", [255] = "again" }
for _, code in ipairs { 3, 5, 6, 10, 11, 12, 14, 20, 21, 22, 30, 35 } do exits_of_rsync[code] = "again" end
for _, code in ipairs { 1, 2, 4, 25 } do exits_of_rsync[code] = "die" end
for _, code in ipairs { 23, 24 } do exits_of_rsync[code] = "ok" end

local function functions_of(name)
    return {
        action = stand_in(name .. ".action"),
        init = stand_in(name .. ".init"),
        prepare = stand_in(name .. ".prepare"),
        collect = stand_in(name .. ".collect"),
        checkgauge = {},
    }
end

default = functions_of "default"
default.maxDelays = 1000
default.maxProcesses = 1
default.statusInterval = 10
default.rsyncExitCodes = exits_of_rsync
default.sshExitCodes = { _merge = false, _verbatim = true, [0] = "ok", [255] = "again" }

default.rsync = functions_of "default.rsync"
default.rsync._layer = "default.rsync"
default.rsync.delay = 15
default.rsync.delete = true
default.rsync.exitcodes = exits_of_rsync
default.rsync.rsync = { binary = "/usr/bin/rsync", links = true, times = true, protect_args = true }

default.rsyncssh = functions_of "default.rsyncssh"
default.rsyncssh._layer = "default.rsyncssh"
default.rsyncssh[1] = default.rsync
default.rsyncssh.delay = 15
default.rsyncssh.maxProcesses = 1
default.rsyncssh.onMove = true
default.rsyncssh.exitcodes = false
default.rsyncssh.rsyncExitCodes = exits_of_rsync
default.rsyncssh.sshExitCodes = default.sshExitCodes
default.rsyncssh.ssh = { binary = "/usr/bin/ssh", _extra = {} }

default.direct = functions_of "default.direct"
default.direct._layer = "default.direct"
default.direct.delay = 1
default.direct.delete = true
default.direct.maxProcesses = 1
default.direct.onMove = true
default.direct.rsync = default.rsync.rsync
default.direct.rsyncExitCodes = exits_of_rsync

lsyncd_version = "2.3.1"
unpack = table.unpack
