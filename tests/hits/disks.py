"""File systems of a test's own, which fill up or stand still. Mounting needs root."""
import contextlib, os, pathlib, subprocess, tempfile


class Disk:
    """Mounted at `folder`: a tmpfs, or an ext4 in a file, which can be frozen."""

    def __init__(self, mib, ext4=False, folder=None):
        self.root = pathlib.Path(tempfile.mkdtemp(prefix="trackpost-hits-"))
        self.folder = pathlib.Path(folder or self.root / "mounted")
        self.folder.mkdir(parents=True, exist_ok=True)
        self.ext4, self.frozen = ext4, False
        if ext4:
            image = self.root / "image"
            with open(image, "wb") as file:
                file.truncate(mib << 20)
            subprocess.run(["mkfs.ext4", "-q", "-E", "lazy_itable_init=1", image], check=True)
            subprocess.run(["mount", "-o", "loop", image, self.folder], check=True)
        else:
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={mib}m,mode=700", "tmpfs", self.folder], check=True)

    def freeze(self):
        """Every write to it waits from now on."""
        subprocess.run(["fsfreeze", "-f", self.folder], check=True)
        self.frozen = True

    def thaw(self):
        if self.frozen:
            subprocess.run(["fsfreeze", "-u", self.folder], check=True)
            self.frozen = False

    def fill(self, left=0):
        """Takes all space but so many bytes."""
        with open(self.folder / "filler", "wb", buffering=0) as file:
            size = self.free() - left
            while size > 0:
                with contextlib.suppress(OSError):
                    os.posix_fallocate(file.fileno(), 0, os.fstat(file.fileno()).st_size + size)
                    break
                size //= 2

    def free(self):
        found = os.statvfs(self.folder)
        return found.f_bavail * found.f_frsize

    def clear(self):
        (self.folder / "filler").unlink(missing_ok=True)

    def remove(self):
        self.thaw()
        subprocess.run(["umount", "-l", self.folder], check=True)
        for name in ("image", "mounted"):
            path = self.root / name
            path.unlink() if path.is_file() else path.is_dir() and path.rmdir()
        self.root.rmdir()
