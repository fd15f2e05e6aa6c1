"""Writes a conda channel: python as a link to this machine's, and small packages for it, one with a program.

channel.py FOLDER [PYTHON VERSION]    the link leads to PYTHON of that version, such as that of an image
"""
import bz2, hashlib, io, json, os, sys, tarfile

root = sys.argv[1]
interpreter, version = sys.argv[2:] or (os.path.realpath(sys.executable), "%d.%d" % sys.version_info[:2])
site = "site-packages"
# What stands in a package for the folder of the environment that it comes into.
prefix = "/opt/" + "placeholder_" * 17


def package(subdir, name, number, depends, files, links=(), noarch=None):
    index = {"name": name, "version": number, "build": "0", "build_number": 0, "depends": depends, "subdir": subdir}
    if noarch:
        index["noarch"] = noarch
    paths = [
        {"_path": path, "path_type": "hardlink", "sha256": hashlib.sha256(text.encode()).hexdigest(), "size_in_bytes": len(text)}
        | ({"prefix_placeholder": prefix, "file_mode": "text"} if prefix in text else {})
        for path, text in files.items()
    ] + [{"_path": path, "path_type": "softlink"} for path, _ in links]
    files = dict(files)
    files["info/index.json"] = json.dumps(index)
    files["info/paths.json"] = json.dumps({"paths": paths, "paths_version": 1})
    files["info/files"] = "".join(p["_path"] + "\n" for p in paths)
    if noarch == "python":
        files["info/link.json"] = json.dumps({"noarch": {"type": "python"}, "package_metadata_version": 1})
    os.makedirs(f"{root}/{subdir}", exist_ok=True)
    file = f"{name}-{number}-0.tar.bz2"
    with tarfile.open(f"{root}/{subdir}/{file}", "w:bz2") as tar:
        for path, text in files.items():
            info = tarfile.TarInfo(path)
            info.size = len(text)
            info.mode = 0o755 if path.startswith("bin/") else 0o644
            tar.addfile(info, io.BytesIO(text.encode()))
        for path, target in links:
            info = tarfile.TarInfo(path)
            info.type = tarfile.SYMTYPE
            info.linkname = target
            tar.addfile(info)
    data = open(f"{root}/{subdir}/{file}", "rb").read()
    index |= {"md5": hashlib.md5(data).hexdigest(), "sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
    repodata.setdefault(subdir, {})[file] = index


repodata = {"noarch": {}, "linux-64": {}}
home = os.path.dirname(interpreter)
package("linux-64", "python", version + ".0", [],
        {"pyvenv.cfg": f"home = {home}\ninclude-system-site-packages = false\nversion = {version}.0\n", f"lib/python{version}/site-packages/README": "conda\n"},
        [("bin/python", interpreter), ("bin/python3", "python"), (f"bin/python{version}", "python")])


def module(site, name, number, program=None):
    """Files of a package of Python. Its RECORD was written where it was built: a program is shorter once it is installed."""
    info, code = f"{site}/{name}-{number}.dist-info", f"V = '{number}'\n"
    record = f"{name}/__init__.py,,{len(code)}\n" + (f"../../../bin/{name},,{len(program)}\n" if program else "")
    return {
        f"{site}/{name}/__init__.py": code,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {number}\n",
        f"{info}/INSTALLER": "conda\n",
        f"{info}/RECORD": record,
    } | ({f"bin/{name}": program} if program else {})


def pure(name, number, depends):
    package("noarch", name, number, ["python"] + depends, module(site, name, number), noarch="python")


pure("alpha", "1.0", [])
pure("alpha", "2.0", [])
pure("beta", "1.0", ["alpha <2"])
program = f"#!{prefix}/bin/python\nimport delta\nprint(delta.V)\n"
package("linux-64", "delta", "1.0", ["python"], module(f"lib/python{version}/{site}", "delta", "1.0", program))
for subdir, packages in repodata.items():
    os.makedirs(f"{root}/{subdir}", exist_ok=True)
    json.dump({"info": {"subdir": subdir}, "packages": packages, "packages.conda": {}, "repodata_version": 1}, open(f"{root}/{subdir}/repodata.json", "w"))
