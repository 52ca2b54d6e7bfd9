# mypy: ignore-errors
# What each Python below `cowshed run` loads at its start, by PYTHONPATH.  Any version may run it.  It loads nothing
# else before a large process forks.
#
# The sitecustomize that our folder hides takes this one's place, in the same module.  So what is below runs in a
# namespace of its own.
if __name__ != "cowshed run":
    _cowshed_run = {"__name__": "cowshed run"}
    exec(__import__("sys")._getframe().f_code, _cowshed_run)
    exec(_cowshed_run["hand_on"](globals()), globals())
else:
    import os
    import sys

    _FOLDER = os.path.dirname(os.path.abspath(sys._getframe().f_code.co_filename))
    _PACKAGE = os.path.dirname(os.path.dirname(_FOLDER))
    _ABOVE = os.environ.get("COWSHED_ABOVE", "")

    def _standard_error():
        """What it is now: no line may go into another file that gets its descriptor."""
        try:
            now = os.fstat(2)
        except OSError:
            return 0, 0, 0
        return now.st_dev, now.st_ino, now.st_mode & 0o170000

    def _is_small():
        try:
            with open("/proc/self/statm", "rb") as statm:
                resident, shared = map(int, statm.read().split()[1:3])
        except OSError:
            return True
        return (resident - shared) * os.sysconf("SC_PAGE_SIZE") < int(_ABOVE)

    def _load():
        import importlib.util

        if "cowshed" not in sys.modules:
            spec = importlib.util.spec_from_file_location("cowshed", os.path.join(_PACKAGE, "__init__.py"),
                                                          submodule_search_locations=[_PACKAGE])
            sys.modules["cowshed"] = package = importlib.util.module_from_spec(spec)
            try:
                spec.loader.exec_module(package)
            except BaseException as error:
                for name in [*sys.modules]:
                    if name.partition(".")[0] == "cowshed":
                        del sys.modules[name]
                if _is_the_programs(error) or not importlib.util.find_spec("cowshed"):  # of its own environment
                    raise
        from cowshed.run import at_fork

        at_fork.standard_error = _at_start
        return at_fork

    def _report(error):
        _say("stays as it is: " + (" ".join(str(error).split()) or type(error).__name__), os.environ.get("COWSHED_LOG"))

    def _say(what, log):
        """As _cowshed.write_line(), which may not be there."""
        text = "cowshed: PID %d %s\n" % (os.getpid(), what)
        if log == "none" or not log and (_at_start[2] == 0 or _standard_error() != _at_start):
            return
        try:
            import resource
            import select

            line = text.encode("utf-8", "replace")[:select.PIPE_BUF]
            file = 2
            if log:
                file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_NOCTTY, 0o666)
            poll = select.poll()
            poll.register(file, select.POLLOUT)
            limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
            end = os.fstat(file).st_size + len(line)  # 0 of what is no file
            if poll.poll(0) == [(file, select.POLLOUT)] and (end <= limit or limit == resource.RLIM_INFINITY):
                os.write(file, line)
            if log:
                os.close(file)
        except (AttributeError, ImportError, OSError):  # gevent and others take poll() away
            pass

    def _is_the_programs(error):
        """Whether one of its signal handlers raised it, perhaps in our code."""
        import _signal

        handlers = [getattr(_signal.getsignal(number), "__code__", None) for number in range(1, _signal.NSIG)]
        trace = error.__traceback__
        while trace and trace.tb_frame.f_code not in handlers:
            trace = trace.tb_next
        return trace or not isinstance(error, Exception)

    _prepare = _load

    def _before_fork():
        global _prepare
        if not _prepare or _prepare is _load and not os.environ.get("COWSHED_PRELOAD") and _is_small():
            return
        prepare, _prepare = _prepare, None  # another thread, or what is preloaded, forks at once meanwhile
        try:
            if prepare is _load:
                prepare = _load().before_fork
            prepare(sys._getframe(1).f_back)  # none: of a thread whose function is os.fork
        except BaseException as error:
            if _is_the_programs(error):
                raise
            prepare = None
            _report(error)
        finally:
            _prepare = prepare

    class _Fork:
        """In the place of os.fork(): freezes as ordinary code, before hooks lock and where handlers may raise.

        A call shows no frame of ours.  So warnings name the program's line."""

        def __init__(self, fork):
            self.__wrapped__ = fork
            for name in ("__module__", "__name__", "__qualname__", "__doc__"):
                setattr(self, name, getattr(fork, name))

        @property
        def __call__(self):
            _before_fork()
            return self.__wrapped__

        def __repr__(self):
            return repr(self.__wrapped__)

        def __reduce__(self):
            return self.__name__

    class _Context:
        """A finder that waits for the module whose classes start processes, and is gone when that is imported."""

        @staticmethod
        def find_spec(name, path=None, target=None):
            if name != "multiprocessing.context":
                return None
            import _frozen_importlib_external

            sys.meta_path.remove(_Context)
            spec = _frozen_importlib_external.PathFinder.find_spec(name, path)
            if spec:
                execute = spec.loader.exec_module

                def exec_module(module):
                    execute(module)
                    _Context.prepare(module)

                spec.loader.exec_module = exec_module
            return spec

        @staticmethod
        def prepare(module):
            module.SpawnProcess._Popen = staticmethod(_popen(module.SpawnProcess._Popen))

    def _popen(plain):
        def popen(process):
            start = plain
            try:
                if os.environ.get("COWSHED_PRELOAD") or not _is_small():
                    _load()
                    from cowshed.run import spawning

                    start = spawning.popen
            except BaseException as error:
                if _is_the_programs(error):
                    raise
                _report(error)
            return start(process)

        return popen

    def _occupy_low_descriptors():
        """Descriptors that an import keeps are those of all programs of a zygote, and must not be in the way of theirs."""
        import resource

        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
        low = [os.dup(0)]
        while low[-1] < min(limit, 4096) - 32:
            low.append(os.dup(0))
        return low

    def _start_warm():
        """Does not return, or in a fork of a zygote, where one forks this program."""
        global _at_start
        zygote = os.environ.get("COWSHED_WARM_ZYGOTE")
        try:
            if zygote:
                plain = set(sys.modules)
                low = _occupy_low_descriptors()
                _load()
                from cowshed.run import zygote

                zygote.main(plain, low)
                _at_start = _standard_error()
            else:
                import _frozen_importlib_external

                names = {"__name__": "cowshed.run.warm"}
                path = os.path.join(_PACKAGE, "run/warm.py")
                loader = _frozen_importlib_external.SourceFileLoader("cowshed.run.warm", path)
                exec(loader.get_code("cowshed.run.warm"), names)
                names["start"](_PACKAGE, lambda what: _say(what, os.environ.get("COWSHED_LOG") or "none"))
        except Exception as error:
            try:
                _report(error)
                if zygote:
                    with open(zygote.partition(":")[2] + ".why", "w") as file:
                        file.write(str(error))
            finally:
                if zygote:
                    os._exit(1)

    def _watch_uwsgi():
        """It forks without telling Python."""
        try:
            _load().watch_c_forks()
        except Exception as error:
            _report(error)

    def hand_on(namespace):
        """Returns the code of the first sitecustomize behind our folder on sys.path, for this module's `namespace`."""
        del namespace["_cowshed_run"]
        at = sys.path.index(_FOLDER) if _FOLDER in sys.path else len(sys.path)
        behind = [path for path in sys.path[at:] if path != _FOLDER]
        sys.path[:] = [path for path in sys.path if path != _FOLDER]
        sys.path_importer_cache.pop(_FOLDER, None)
        if sys.version_info < (3, 7):
            del sys.modules["sitecustomize"]
            import sitecustomize  # noqa: F401

            return ""
        import _frozen_importlib
        import _frozen_importlib_external

        spec = _frozen_importlib_external.PathFinder.find_spec("sitecustomize", behind)
        if spec:
            name = namespace["__name__"]
            namespace.update(vars(_frozen_importlib.module_from_spec(spec)), __name__=name)
            return namespace["__loader__"].get_code("sitecustomize") or _frozen_importlib._load(spec) and ""
        # Without us an import would fail, and a tool that looks for a hidden sitecustomize would find none.
        frame = sys._getframe(2)
        while frame and frame.f_code.co_filename.startswith("<frozen importlib"):
            if frame.f_code.co_name == "_find_and_load":
                raise ModuleNotFoundError("No module named 'sitecustomize'", name="sitecustomize")
            frame = frame.f_back
        while frame:
            module = frame.f_locals.get("module") if frame.f_code.co_name == "_load_unlocked" else None
            if module and vars(module) is namespace:  # the tool's own, which its load_module() has made ours
                _frozen_importlib._init_module_attrs(frame.f_locals["spec"], module, override=True)
            frame = frame.f_back
        return ""

    if (_FOLDER in sys.path and os.environ.get("COWSHED") != "off" and hasattr(os, "register_at_fork") and
            _ABOVE.isdigit()):
        _at_start = _standard_error()
        if os.path.basename(os.path.realpath("/proc/self/exe")).startswith("uwsgi"):
            _watch_uwsgi()
        else:
            import posix

            if os.environ.get("COWSHED_WARM") and sys.version_info >= (3, 11):
                _start_warm()
            for name in ("fork", "forkpty"):
                if hasattr(os, name):
                    setattr(os, name, _Fork(getattr(os, name)))
                    setattr(posix, name, getattr(os, name))
            if "multiprocessing.context" in sys.modules:  # of a zygote
                _Context.prepare(sys.modules["multiprocessing.context"])
            elif sys.version_info >= (3, 11):
                sys.meta_path.insert(0, _Context)
