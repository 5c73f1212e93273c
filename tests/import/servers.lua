-- A loop, layers, and Lua of several versions.
local servers = { "web1", "web2", "10.0.0.7" }
local common = { default.rsync, delay = 3, rsync = { archive = true, compress = false } }
local function mirror(host, tree)
    return sync {
        common,
        source = ("/srv/%s"):format(tree),
        target = table.concat({ "deploy@", host, ":/var/", tree, "/" }),
        exclude = { unpack({ ".git", "*.swp" }) },
    }
end
for _, host in ipairs(servers) do
    mirror(host, "www")
end
for host in string.gmatch("db1 db2", "%S+") do
    sync {
        default.rsyncssh, source = "/srv/dumps", host = host, targetdir = "/srv/dumps",
        rsync = { bwlimit = 100 },
    }
end
sync { default.rsync, source = "/srv/rules", target = "rsync://web1:873/rules/sub" }
sync { default.rsync, source = "/srv/rules", target = "web2::rules" }
