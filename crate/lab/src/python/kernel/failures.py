"""How a cell failed, as Jupyter tells it: (name, value, traceback)."""

import re

RED, PLAIN = "\x1b[31m", "\x1b[0m"
# evcxr's counts of cells are not those that the person sees.
COMMAND = re.compile(r"\bcommand_\d+\b")

STOPPABLE = (
    "To make a loop of your own stoppable, look for the interrupt in it: `check_interrupt()?`, or "
    "`for x in stoppable(iterator)`. The library's own long loops do."
)
LOST = "All variables are lost: run the cells again."


def of(request):
    """How the request failed, or None."""
    if request.killed:
        value = f"the cell did not look for the interrupt, and its process was ended. {LOST}\n{STOPPABLE}"
        return told("Killed", value)
    failed = request.failed
    if request.presses and (failed or request.errors):
        return told("Interrupted", "the cell was stopped; variables of earlier cells are kept")
    if failed:
        return told({"panic": "Panic"}.get(failed["kind"], "Error"), failed["message"])
    if request.errors:
        return of_evcxr(request)
    return None


def of_evcxr(request):
    """What evcxr says: of a compiler, or of a process that ended."""
    first = request.errors[0]["evalue"]
    if "Subprocess terminated" in first:
        how = first.partition("status: ")[2] or first
        return told("Killed", f"the process behind the cells ended ({how.strip()}). {LOST}")
    lines = [line for error in request.errors for line in error["traceback"]]
    name = f"cell_{request.count}"
    return "Error", first, [COMMAND.sub(name, line) for line in lines]


def no_kernel(message):
    return told("NoKernel", message)


def kernel_gone(status):
    return told("KernelGone", f"evcxr_jupyter ended ({status}). {LOST}")


def told(name, value):
    return name, value, [f"{RED}{name}{PLAIN}: {value}"]
