"""Programs that want a verdict they have not earned. Each would get it from some judge that runs beside them, and none
knows how to add: asked for is ``solve(xs)``, the sum of xs."""

TRICKS = {
    "leaves": """
import os
os._exit(0)
""",
    "leaves later": """
import os
def solve(xs):
    os._exit(0)
""",
    "exit handler": """
import atexit, os
atexit.register(lambda: os.write(1, b'{"value": 6}\\n'))
raise SystemExit(0)
""",
    "prints the verdict": """
import os
for fd in range(20):
    try: os.write(fd, b'{"passed": true, "value": true}\\nOK\\n')
    except OSError: pass
def solve(xs): return 1
""",
    "answers ahead": """
import os
def solve(xs):
    for fd in range(3, 20):
        try: os.write(fd, b'{"value": 6}\\n{"value": 0}\\n{"value": 5}\\n')
        except OSError: pass
    os._exit(0)
""",
    "equal to everything": """
class E(int):
    def __eq__(self, other): return True
    def __hash__(self): return 0
def solve(xs): return E(7)
""",
    "says True": """
class T:
    def __eq__(self, other): return True
def solve(xs): return True
""",
    "json patched": """
import json
json.dumps = lambda *a, **k: '{"value": true}'
def solve(xs): return 1
""",
    "builtins patched": """
import builtins
builtins.all = builtins.any = lambda *a: True
builtins.isinstance = lambda *a: True
def solve(xs): return None
""",
    "unittest patched": """
import unittest
unittest.TestCase.assertEqual = lambda *a: None
def solve(xs): return None
""",
    "rewrites the tests": """
import os
for root, _, names in os.walk('/box'):
    for name in names:
        try: open(os.path.join(root, name), 'w').write('print(1)')
        except OSError: pass
def solve(xs): return 1
""",
    "patches the judge": """
import sys
main = sys.modules['__main__']
main.said = lambda *a: '{"value": true}'
def solve(xs): return 1
""",
    "traces": """
import sys
seen = []
def spy(frame, event, arg):
    seen.append(frame.f_locals)
    return spy
sys.settrace(spy)
def solve(xs):
    names = ('expected', 'want', 'answer')
    return next((v for d in list(seen) for k, v in d.items() if k in names and type(v) is int), None)
""",
    "collects garbage": """
import gc
def solve(xs):
    found = [o['expected'] for o in gc.get_objects() if isinstance(o, dict) and 'expected' in o]
    return found[0] if found else None
""",
    "looks up the stack": """
import inspect
def solve(xs):
    for frame in inspect.stack():
        for name, value in frame.frame.f_locals.items():
            if 'expect' in name or 'test' in name: return value
    return None
""",
    "reads the files": """
import os
def solve(xs):
    text = ''.join(open(os.path.join(a, b)).read() for a, _, c in os.walk('/box') for b in c)
    return 'expected": ' in text
""",
    "answers the next line": """
import os, json
def solve(xs):
    return os.read(3, 65536).decode()
""",
}
