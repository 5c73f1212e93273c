-- What driftless would do otherwise, one reason each.
local function one(name, options, more)
    local config = { default.rsync, source = "/srv/" .. name, target = "/mnt/" .. name, rsync = options }
    for key, value in pairs(more or {}) do config[key] = value end
    sync(config)
end
one("update", { update = true })
one("existing", { existing = true })
one("backup", { backup = true, backup_dir = "/mnt/old", suffix = ".old" })
one("follows", { copy_links = true })
one("dirlinks", { copy_dirlinks = true })
one("keeps", { keep_dirlinks = true })
one("pretends", { dry_run = true })
one("moves", { _extra = { "--remove-source-files" } })
one("unknown", { _extra = { "--frobnicate" } })
one("relative", {}, { source = "srv/relative" })
one("nowhere", {}, { target = "copy" })
one("deletes", {}, { delete = "sometimes" })
one("below", {}, { target = "/mnt/update/sub" })
one("fine", { perms = false, acls = false, existing = false, _extra = { "--no-owner", "--exclude=a", "--delete-excluded" } },
    { delete = false, exclude = "x" })
one("atonce", {}, { delay = 0, maxDelays = 5 })
one("fraction", {}, { delay = 0.25 })
