"""Several calls into Java made one.

A call from Python into Java costs some five microseconds, and every object that comes back is wrapped in Python; a
search by way of the usual calls makes a hundred of them. ``java.lang.invoke`` composes methods into one function that
runs in Java from end to end, so that a string goes in and a string comes out: see :func:`function`.

Handles are objects of ``java.lang.invoke.MethodHandle``; descriptors are those of the Java virtual machine
specification (4.3.3), such as ``(Ljava/lang/String;)V``. Whoever calls holds :data:`~sparse_sts_index.jvm.jvm_lock`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sparse_sts_index.jvm import java_cast, java_class

Handle = Any

_INVOKE = "java.lang.invoke."
_FUNCTION, _STREAM, _COLLECTOR = "java.util.function.Function", "java.util.stream.Stream", "java.util.stream.Collector"


def method(class_name: str, name: str, descriptor: str) -> Handle:
    """An instance method; the object it is called on becomes its first parameter."""
    of, signature = _named(class_name), _method_type(descriptor)
    return _lookup().findVirtual(of, name, signature)


def bound(class_name: str, instance: Any, name: str, descriptor: str) -> Handle:
    """A method of one object, which is of that class."""
    return fill(method(class_name, name, descriptor), 0, constant(class_name, instance))


def static(class_name: str, name: str, descriptor: str) -> Handle:
    """A static method."""
    of, signature = _named(class_name), _method_type(descriptor)
    return _lookup().findStatic(of, name, signature)


def constructor(class_name: str, descriptor: str) -> Handle:
    """A constructor; its descriptor returns ``V``."""
    of, signature = _named(class_name), _method_type(descriptor)
    return _lookup().findConstructor(of, signature)


def constant(class_name: str, value: Any) -> Handle:
    """A function without parameters that returns `value`; `class_name` may be ``int``."""
    of = java_class("java.lang.Integer").TYPE if class_name == "int" else _named(class_name)
    return _handles().constant(of, value)


def fill(handle: Handle, position: int, supplier: Handle) -> Handle:
    """Replace a parameter of `handle` by what `supplier` makes of parameters of its own."""
    wanted = java_cast("java.lang.Class", handle.type().parameterType(position))
    adapted = _as_type(supplier, supplier.type().changeReturnType(wanted))
    return _handles().collectArguments(handle, position, adapted)


def then(first: Handle, second: Handle) -> Handle:
    """`second` of the result of `first`."""
    given = java_cast("java.lang.Class", first.type().returnType())
    adapted = _as_type(second, second.type().changeParameterType(0, given))
    return _handles().filterReturnValue(first, adapted)


def getter(class_name: str, name: str, type_name: str) -> Handle:
    """A public field of an object, which becomes the parameter; `type_name` is as ``Class.forName`` takes it."""
    of, kind = _named(class_name), _named(type_name)
    return _lookup().findGetter(of, name, kind)


def joined(stream: Handle, each: Handle, separator: str) -> Handle:
    """Apply `each` to all elements of the stream that `stream` gives, and join the strings it makes of them."""
    mapped = fill(
        method(_STREAM, "map", "(Ljava/util/function/Function;)Ljava/util/stream/Stream;"),
        1,
        constant(_FUNCTION, _as_function(each)),
    )
    between = java_cast("java.lang.CharSequence", java_class("java.lang.String")(separator))
    joining = java_class("java.util.stream.Collectors").joining(between)
    collected = fill(
        method(_STREAM, "collect", "(Ljava/util/stream/Collector;)Ljava/lang/Object;"), 1, constant(_COLLECTOR, joining)
    )
    return then(then(stream, mapped), collected)


def per_line(handle: Handle, *, parallel: bool) -> Handle:
    """Apply a function of a string to each line of a string, and join what it gives, which may hold no line ends.

    In parallel the lines are spread over all cores, by Java's common pool.
    """
    lines = method("java.lang.String", "lines", "()Ljava/util/stream/Stream;")
    if parallel:
        lines = then(lines, method(_STREAM, "parallel", "()Ljava/util/stream/BaseStream;"))
    return joined(lines, handle, "\n")


def collect(handle: Handle, count: int) -> Handle:
    """A function of `count` values in place of one array of them, its only parameter."""
    array = java_cast("java.lang.Class", handle.type().parameterType(0))
    return handle.asCollector(array, count)


def run(handle: Handle) -> None:
    """Call a function without parameters for what it does."""
    interface = _named("java.lang.Runnable")
    runnable = java_class(_INVOKE + "MethodHandleProxies").asInterfaceInstance(interface, handle)
    java_cast("java.lang.Runnable", runnable).run()


def quiet_threads() -> None:
    """Have threads of Java's own end without a word on stderr, unless somebody else has a say in it already.

    Whoever waits for what a thread was to do is told of its failure anyway.
    """
    threads = java_class("java.lang.Thread")
    if threads.getDefaultUncaughtExceptionHandler() is None:
        nothing = _handles().empty(_method_type("(Ljava/lang/Thread;Ljava/lang/Throwable;)V"))
        interface = _named("java.lang.Thread$UncaughtExceptionHandler")
        handler = java_class(_INVOKE + "MethodHandleProxies").asInterfaceInstance(interface, nothing)
        threads.setDefaultUncaughtExceptionHandler(java_cast("java.lang.Thread$UncaughtExceptionHandler", handler))


def function(handle: Handle) -> Callable[[str], str]:
    """A handle from string to string as something to call from Python: one call into Java, and one back."""
    java_function = java_cast(_FUNCTION, _as_function(handle))

    def call(argument: str) -> str:
        result: str = java_function.apply(argument)
        return result

    return call


def _as_type(handle: Handle, method_type: Any) -> Handle:
    changed = java_cast(_INVOKE + "MethodType", method_type)  # pyjnius sees the interface that it is returned as
    return handle.asType(changed)


def _as_function(handle: Handle) -> Any:
    interface = _named(_FUNCTION)
    return java_class(_INVOKE + "MethodHandleProxies").asInterfaceInstance(interface, handle)


def _named(class_name: str) -> Any:
    return java_class("java.lang.Class").forName(class_name)


def _method_type(descriptor: str) -> Any:
    loader = java_class("java.lang.ClassLoader").getSystemClassLoader()
    return java_class(_INVOKE + "MethodType").fromMethodDescriptorString(descriptor, loader)


def _handles() -> Any:
    return java_class(_INVOKE + "MethodHandles")


def _lookup() -> Any:
    return _handles().publicLookup()
