"""Modules beside a user's file, importable by the code of that folder and by nobody else.

The modules of a folder are loaded under a name of their own, such as `ddpo_user_1f0c_1.helper`.
So two folders may each have a `helper.py`, and a neighbour called `types.py` hides nothing from
the program. User code still writes `import helper`: its built-in `__import__` looks in its folder
first. A neighbour hides neither the standard library nor a package that ddpo depends on.

Other code, such as `torch.load` on a pickled object of a user's class, finds a neighbour by its
plain name while it is called by code of that folder.
"""

from __future__ import annotations

import builtins
import hashlib
import importlib
import importlib.util
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType, FrameType, ModuleType
from typing import Any, Final

from ddpo.author_errors import USER_MODULE, authored_folder
from ddpo.errors import RewardLoadError

__all__ = ["DEPENDENCIES", "FolderModules", "modules_beside"]

DEPENDENCIES: Final = frozenset(
    (
        *("PIL", "accelerate", "bert_score", "bert_score_cli", "bitsandbytes", "diffusers"),
        *("fastapi", "ftfy", "functorch", "huggingface_hub", "jinja2", "markupsafe", "numpy"),
        *("onnxruntime", "open_clip", "open_clip_train", "pandas", "peft", "pillow_heif", "pooch"),
        *("pyarrow", "rapidocr", "rich", "safetensors", "scipy", "sentencepiece", "tensorboard"),
        *("torch", "torchgen", "transformers", "typer", "uvicorn", "wandb"),
    )
)
"""Modules of the packages that ddpo and its extras need, which no neighbour hides."""

_folders: dict[str, FolderModules] = {}
"""Name of a root module → the modules of its folder."""
_newest: dict[Path, FolderModules] = {}
"""Folder → its modules as they were last loaded."""
_aliases: dict[str, ModuleType] = {}
"""Plain names in `sys.modules` under which other code found a neighbour."""


class FolderModules:
    """The modules of one folder, as its own code imports them.

    Args:
        folder: Absolute path of the folder.
        name: Name of the root module, whose submodules are the modules of the folder.

    Attributes:
        files: Path of a file → its SHA-256 when the user's file that needs it was loaded.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self.name = name
        self.files: dict[Path, str] = {}
        self._builtins = {**vars(builtins), "__import__": self._import}
        self._importlib = _Importlib(self)
        root = ModuleType(name)
        root.__path__ = [str(folder)]
        root.__package__ = name
        root.__spec__ = ModuleSpec(
            name, _NeighbourLoader(name, str(folder / "__init__.py")), is_package=True
        )
        root.__spec__.submodule_search_locations = root.__path__
        root.__loader__ = root.__spec__.loader
        sys.modules[name] = root

    def module_for(self, path: Path) -> ModuleType:
        """A new, empty module for a file of this folder, registered under its name.

        Args:
            path: Path of the Python file; its stem may be no Python name.
        """
        own = re.sub(r"\W", "_", path.stem)
        if own != path.stem:
            own += hashlib.sha256(path.name.encode()).hexdigest()[:8]
        name = f"{self.name}.{own}"
        place = str(path.absolute())
        module = ModuleType(name)
        module.__file__ = place
        module.__package__ = self.name
        module.__spec__ = ModuleSpec(name, _NeighbourLoader(name, place), origin=place)
        module.__loader__ = module.__spec__.loader
        self.prepare(module)
        sys.modules[name] = module  # dataclasses and pickle look up the module of a class by name
        return module

    def prepare(self, module: ModuleType) -> None:
        """Makes the imports of a module find its neighbours."""
        vars(module)["__builtins__"] = self._builtins

    def owns(self, top: str) -> bool:
        """True if a top-level name is a neighbour for the code of this folder."""
        if not top or top == "ddpo" or top in sys.stdlib_module_names or top in DEPENDENCIES:
            return False
        own = f"{self.name}.{top}"
        return own in sys.modules or PathFinder.find_spec(own, [str(self.folder)]) is not None

    def import_module(self, name: str, package: str | None = None) -> ModuleType:
        """As `importlib.import_module`, where plain names may be neighbours."""
        if self.owns(name.partition(".")[0]):
            return importlib.import_module(f"{self.name}.{name}")
        return importlib.import_module(name, package)

    def _import(
        self,
        name: str,
        globals: Mapping[str, Any] | None = None,  # the names of `__import__`
        locals: Mapping[str, Any] | None = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> ModuleType:
        """The `__import__` of the code of this folder."""
        top = name.partition(".")[0]
        importer = str((globals or {}).get("__name__", ""))
        itself = importer == f"{self.name}.{top}"  # a file such as clip.py that needs clip
        if level or itself or not self.owns(top):
            found = builtins.__import__(name, globals, locals, fromlist or (), level)
            return self._importlib if found is importlib else found
        own = importlib.import_module(f"{self.name}.{name}")
        if isinstance(fromlist, list):  # from C, as by pickle, which reads sys.modules next
            _add_alias(name, own)
        if not fromlist:
            return sys.modules[f"{self.name}.{top}"]
        return builtins.__import__(f"{self.name}.{name}", globals, locals, fromlist, 0)


class _Importlib(ModuleType):
    """The module `importlib` for the code of one folder."""

    def __init__(self, modules: FolderModules) -> None:
        super().__init__("importlib", importlib.__doc__)
        self.import_module = modules.import_module

    def __getattr__(self, name: str) -> Any:
        return getattr(importlib, name)


class _NeighbourLoader(SourceFileLoader):
    """Loads a module of a user's folder from its source, without a compiled copy.

    Python detects a stale copy by second and size, too coarse for an edited neighbour.
    """

    def get_code(self, fullname: str) -> CodeType:
        """The code of the module.

        Raises:
            RewardLoadError: The file was changed since the code that imports it was loaded.
        """
        modules = _folders[fullname.partition(".")[0]]
        path = self.get_filename(fullname)
        source = self.get_data(path)
        known = modules.files.get(Path(path).resolve())
        if known not in (None, hashlib.sha256(source).hexdigest()):
            raise RewardLoadError(
                f"{Path(path).name} was changed after the code that imports it was loaded; "
                "start the command or the program again"
            )
        return compile(source, path, "exec", dont_inherit=True)

    def exec_module(self, module: ModuleType) -> None:
        """Runs the module with the imports of its folder."""
        _folders[module.__name__.partition(".")[0]].prepare(module)
        super().exec_module(module)


class _Alias(Loader):
    """Gives a module of a user's folder to code that knows only its plain name."""

    def __init__(self, own: str) -> None:
        self._own = own
        self._spec: ModuleSpec | None = None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """The module itself."""
        module = importlib.import_module(self._own)
        self._spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Restores the attribute that the import system has replaced."""
        if module.__spec__ is not None:
            _aliases[module.__spec__.name] = module
        module.__spec__ = self._spec


class _OwnFinder(MetaPathFinder):
    """Finds the modules of users' folders under their own names, and submodules of aliases."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec of a module below a root module."""
        parent, _, last = fullname.rpartition(".")
        if parent in _aliases:
            own = f"{_aliases[parent].__name__}.{last}"
            return ModuleSpec(fullname, _Alias(own)) if _exists(own, path) else None
        if fullname.partition(".")[0] not in _folders or not parent:
            return None
        spec = PathFinder.find_spec(fullname, path)
        if spec is not None and type(spec.loader) is SourceFileLoader:
            spec.loader = _NeighbourLoader(fullname, str(spec.origin))
        return spec


class _PlainFinder(MetaPathFinder):
    """Finds neighbours by their plain name for other code that is called by code of the folder."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec of an alias; None for a name that no calling code's folder has.

        Raises:
            ImportError: Folders of several users' files have such a module.
        """
        if path is not None or not _folders:
            return None
        caller = _calling_folder(sys._getframe(1))
        if caller is None or not caller.owns(fullname):
            return None
        others = [
            str(found.folder)
            for found in _newest.values()
            if found.folder != caller.folder and found.owns(fullname)
        ]
        if others:
            raise ImportError(
                f"{fullname!r} is a module of {caller.folder} and of {others[0]}: import it in "
                "your code first and pass the module itself, or rename one"
            )
        return ModuleSpec(fullname, _Alias(f"{caller.name}.{fullname}"))


def modules_beside(path: Path, files: Mapping[str, str], again: bool) -> FolderModules:
    """The modules of a file's folder, as they are now.

    Args:
        path: Path of a user's Python file.
        files: SHA-256 of the files it depends on, by path relative to its folder.
        again: True if the file was run before and depended on something else then.
    """
    folder = path.absolute().parent
    states = {(folder / name).resolve(): digest for name, digest in files.items()}
    found = _newest.get(folder)
    if found is None or again or any(found.files.get(p, d) != d for p, d in states.items()):
        if not _folders:
            sys.meta_path.insert(0, _OwnFinder())
            sys.meta_path.append(_PlainFinder())
        number = sum(known.folder == folder for known in _folders.values()) + 1
        digest = hashlib.sha256(str(folder).encode()).hexdigest()[:12]
        name = f"{USER_MODULE}{digest}_{number}"
        authored_folder(folder)
        found = FolderModules(folder, name)
        _folders[name] = found
        _newest[folder] = found
        _forget_aliases()
    found.files.update(states)
    importlib.invalidate_caches()
    return found


def _exists(own: str, path: Sequence[str] | None) -> bool:
    return own in sys.modules or PathFinder.find_spec(own, path) is not None


def _add_alias(name: str, module: ModuleType) -> None:
    """Registers a neighbour under its plain name, unless other code has such a module."""
    if name not in sys.modules or name in _aliases:
        sys.modules[name] = module
        _aliases[name] = module


def _forget_aliases() -> None:
    """Removes all plain names of neighbours, since they may mean other files from now on."""
    for name, module in _aliases.items():
        if sys.modules.get(name) is module:
            del sys.modules[name]
    _aliases.clear()


def _calling_folder(frame: FrameType | None) -> FolderModules | None:
    """The folder whose code has caused an import; None if it is a library's search for a module.

    Args:
        frame: Frame of the import system.
    """
    searched = False
    for found in _outward(frame):
        folder = _folders.get(str(found.f_globals.get("__name__", "")).partition(".")[0])
        if folder is not None:
            return folder
        if searched:  # transformers looks for optional packages, which no neighbour is
            return None
        searched = found.f_code is importlib.util.find_spec.__code__
    return None


def _outward(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back
