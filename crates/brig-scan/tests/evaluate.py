"""Which probes are vulnerable, by the feeds' own specifications; shares no code with the crate.

usage: evaluate.py FOLDER < probes > findings

A probe is `space TAB package TAB version`; a finding is the probe and the id of a flaw (for
distributions) or of a record (for languages). Every record is evaluated for itself, as its format's
specification says; nothing is indexed, merged or simplified beforehand.

Accepted rules beyond the specifications, the same on both sides:
- a publisher's standing verdict (Debian's tracker, DEBIAN-CVE-*, UBUNTU-CVE-*, secdb) comes before
  announcements (DSA, USN, ALSA, ...) unless it knows no fix;
- announcements of bug fixes (ALBA, ALEA) that name no CVE are about no vulnerability;
- livepatches (LSN) are about kernels, not packages;
- modular rpms are compared with modular ones only.
"""
import csv, functools, io, json, os, re, subprocess, sys, tarfile
from collections import defaultdict
try:
    import tomllib
except ImportError:
    tomllib = None

# ---- orders -------------------------------------------------------------------------------------

def sign(n):
    return (n > 0) - (n < 0)

def number(a, b):
    a, b = a.lstrip('0'), b.lstrip('0')
    return sign(len(a) - len(b)) or (a > b) - (a < b)

def epoch(v):
    m = re.match(r'([0-9]+):(.*)$', v, re.S)
    return (m[1], m[2]) if m else ('0', v)

def deb_part(a, b):
    def order(c):
        return 0 if c == '' else -1 if c == '~' else ord(c) if c.isascii() and c.isalpha() else ord(c) + 256
    while a or b:
        x, y = re.match(r'[^0-9]*', a)[0], re.match(r'[^0-9]*', b)[0]
        for i in range(max(len(x), len(y))):
            r = sign(order(x[i:i + 1]) - order(y[i:i + 1]))
            if r:
                return r
        a, b = a[len(x):], b[len(y):]
        x, y = re.match(r'[0-9]*', a)[0], re.match(r'[0-9]*', b)[0]
        r = number(x, y)
        if r:
            return r
        a, b = a[len(x):], b[len(y):]
    return 0

def evr(part):
    def compare(a, b):
        (e, a), (f, b) = epoch(a.strip()), epoch(b.strip())
        (v, _, r), (w, _, s) = a.rpartition('-'), b.rpartition('-')
        if '-' not in a:
            v, r = a, ''
        if '-' not in b:
            w, s = b, ''
        return number(e, f) or part(v, w) or part(r, s)
    return compare

def rpm_part(a, b):
    x, y = (re.findall(r'[0-9]+|[A-Za-z]+|~|\^', v) for v in (a, b))
    for i in range(max(len(x), len(y)) + 1):
        p, q = (x[i] if i < len(x) else ''), (y[i] if i < len(y) else '')
        if p == q:
            if p == '':
                return 0
            continue
        if '~' in (p, q):
            return -1 if p == '~' else 1
        if '^' in (p, q):
            if p == '^':
                return 1 if q == '' else -1
            return -1 if p == '' else 1
        if '' in (p, q):
            return -1 if p == '' else 1
        if p.isdigit() and q.isdigit():
            r = number(p, q)
            if r:
                return r
        elif p.isdigit() != q.isdigit():
            return 1 if p.isdigit() else -1
        else:
            return -1 if p < q else 1
    return 0

APK = ['alpha', 'beta', 'pre', 'rc', '', 'cvs', 'svn', 'git', 'hg', 'p']

def apk_tokens(v):
    out, kind, v = [], None, v.strip()
    ways = [(0, r'([0-9]+)', ()), (1, r'\.([0-9]+)', (0, 1)), (2, r'([a-z])', (0, 1)), (3, r'([0-9]+)', (2,)),
            (4, r'_(alpha|beta|pre|rc|cvs|svn|git|hg|p)(?![a-z])', (0, 1, 2, 3, 4, 5)), (5, r'([0-9]+)', (4,)),
            (6, r'~([0-9a-fA-F]+)', (0, 1, 2, 3, 4, 5)), (7, r'-r([0-9]+)', (0, 1, 2, 3, 4, 5, 6))]
    while v:
        for token, pattern, after in ways:
            m = re.match(pattern, v)
            if m and ((kind is None and token == 0) or (kind is not None and kind in after)):
                out.append((token, m[1]))
                kind, v = token, v[m.end():]
                break
        else:
            out.append((8, v))
            break
    if not out or out[-1][0] != 8:
        out.append((9, ''))
    return out

def apk(a, b):
    for (t, x), (u, y) in zip(apk_tokens(a) + [(9, '')], apk_tokens(b) + [(9, '')]):
        if t == u:
            if t == 9:
                return 0
            if t == 8:
                return deb_part(x, y)
            if t in (2, 6):
                r = (x > y) - (x < y)
            elif t == 4:
                r = sign(APK.index(x) - APK.index(y))
            elif t == 1 and (x[0] == '0' or y[0] == '0'):
                r = (x > y) - (x < y)
            else:
                r = number(x, y)
            if r:
                return r
            continue
        if 0 in (t, u):
            return 1 if t == 0 else -1
        if t == 4 and APK.index(x) < 4:
            return -1
        if u == 4 and APK.index(y) < 4:
            return 1
        return sign(u - t)
    return 0

def semver_key(v, flavour):
    v = v.split()[0].lstrip('=') if v.split() else ''
    if flavour == 'go' and v.startswith('go'):
        v = v[2:]
    if v[:1] in ('v', 'V'):
        v = v[1:]
    v = v.split('+')[0]
    m = re.match(r'[0-9]+(\.[0-9]+)*', v)
    if not m:
        return None
    nums, rest = m[0].split('.'), v[m.end():]
    if rest.startswith('.'):
        rest = rest[1:]
    if flavour == 'go' and rest and not rest.startswith('-'):
        word = re.match(r'[^0-9]*', rest)[0]
        pre = [word] + ([rest[len(word):]] if rest[len(word):] else [])
    elif rest.startswith('-'):
        pre = rest[1:].split('.')
    else:
        pre = rest.split('.') if rest else []
    return nums, [p.lower() for p in pre] if flavour == 'nuget' else pre

def semver(flavour):
    def compare(a, b):
        x, y = semver_key(a, flavour), semver_key(b, flavour)
        for i in range(max(len(x[0]), len(y[0]))):
            r = number(x[0][i] if i < len(x[0]) else '0', y[0][i] if i < len(y[0]) else '0')
            if r:
                return r
        if not x[1] or not y[1]:
            return (not x[1]) - (not y[1])
        for p, q in zip(x[1], y[1]):
            if p.isdigit() and q.isdigit():
                r = number(p, q)
            elif p.isdigit() or q.isdigit():
                r = -1 if p.isdigit() else 1
            else:
                r = (p > q) - (p < q)
            if r:
                return r
        return sign(len(x[1]) - len(y[1]))
    return compare

PEP = re.compile(r'v?(?:([0-9]+)!)?([0-9]+(?:\.[0-9]+)*)(?:[-_.]?(alpha|a|beta|b|preview|pre|rc|c)[-_.]?([0-9]+)?)?'
                 r'(?:-([0-9]+)|[-_.]?(post|rev|r)[-_.]?([0-9]+)?)?(?:[-_.]?(dev)[-_.]?([0-9]+)?)?'
                 r'(?:\+([a-z0-9]+(?:[-_.][a-z0-9]+)*))?$')

def pep_key(v):
    m = PEP.match(v.strip().lower())
    if not m:
        return None
    release = [int(n) for n in m[2].split('.')]
    while release and release[-1] == 0:
        release.pop()
    inf = float('inf')
    post = int(m[5] or m[7] or 0) if m[5] or m[6] else None
    dev = int(m[9] or 0) if m[8] else None
    if m[3]:
        pre = ({'a': 0, 'b': 1}.get(m[3][0] if m[3] not in ('preview', 'pre', 'rc', 'c') else 'r', 2), int(m[4] or 0))
    elif post is None and dev is not None:
        pre = (-1, 0)
    else:
        pre = (3, 0)
    local = [(1, int(p), '') if p.isdigit() else (0, 0, p) for p in re.split('[-_.]', m[10])] if m[10] else []
    return int(m[1] or 0), release, pre, -1 if post is None else post, inf if dev is None else dev, local

def pep440(a, b):
    x, y = pep_key(a), pep_key(b)
    return (x > y) - (x < y)

QUALIFIERS = ['alpha', 'beta', 'milestone', 'rc', 'snapshot', '', 'sp']

def mvn_parse(v):
    v = v.strip().lower()
    root = []
    stack = [root]
    def push():
        inner = []
        stack[-1].append(inner)
        stack.append(inner)
    def word(w, digit):
        if digit and w in ('a', 'b', 'm'):
            w = {'a': 'alpha', 'b': 'beta', 'm': 'milestone'}[w]
        return {'ga': '', 'final': '', 'release': '', 'cr': 'rc'}.get(w, w)
    start, digit = 0, False
    for i, c in enumerate(v):
        if c in '.-':
            stack[-1].append(0 if i == start else int(v[start:i]) if digit else word(v[start:i], False))
            start = i + 1
            if c == '-':
                push()
        elif c in '0123456789':
            if not digit and i > start:
                if stack[-1]:
                    push()
                stack[-1].append(word(v[start:i], True))
                start = i
                push()
            digit = True
        else:
            if digit and i > start:
                stack[-1].append(int(v[start:i]))
                start = i
                push()
            digit = False
    if len(v) > start:
        if not digit and stack[-1]:
            push()
        stack[-1].append(int(v[start:]) if digit else word(v[start:], False))
    for items in reversed(stack):
        for i in range(len(items) - 1, -1, -1):
            if items[i] in (0, '', []):
                del items[i]
            elif not isinstance(items[i], list):
                break
    return root

def mvn_cmp(a, b):
    def qualifier(w):
        return str(QUALIFIERS.index(w)) if w in QUALIFIERS else '7-' + w
    if isinstance(a, int):
        if b is None:
            return sign(a)
        return sign(a - b) if isinstance(b, int) else 1
    if isinstance(a, str):
        if b is None:
            return (qualifier(a) > '5') - (qualifier(a) < '5')
        if isinstance(b, str):
            return (qualifier(a) > qualifier(b)) - (qualifier(a) < qualifier(b))
        return -1
    if b is None:
        return next((r for r in (mvn_cmp(i, None) for i in a) if r), 0)
    if isinstance(b, int):
        return -1
    if isinstance(b, str):
        return 1
    for i in range(max(len(a), len(b))):
        x, y = (a[i] if i < len(a) else None), (b[i] if i < len(b) else None)
        r = (0 if y is None else -mvn_cmp(y, None)) if x is None else mvn_cmp(x, y)
        if r:
            return r
    return 0

def maven(a, b):
    return mvn_cmp(mvn_parse(a), mvn_parse(b))

def gem(a, b):
    def canonical(v):
        v = v.strip()
        head, dash, tail = v.partition('-')
        if dash and (re.match(r'(x86_64|x86|x64|i[3-6]86|aarch64|arm64|arm|universal|java|jruby|mswin32|mswin64|mingw32|ppc64le|s390x)(-|$)', tail)
                     or re.match(r'(linux|darwin)', tail.split('-')[-1])):
            v = head
        parts = [int(p) if p.isdigit() else p for p in re.findall(r'[0-9]+|[a-zA-Z]+', v.replace('-', '.pre.'))]
        at = next((i for i, p in enumerate(parts) if isinstance(p, str)), len(parts))
        out = []
        for part in (parts[:at], parts[at:]):
            while part and part[-1] == 0:
                part.pop()
            out += part
        return out
    x, y = canonical(a), canonical(b)
    for i in range(max(len(x), len(y))):
        p, q = (x[i] if i < len(x) else 0), (y[i] if i < len(y) else 0)
        if p == q:
            continue
        if isinstance(p, str) != isinstance(q, str):
            return -1 if isinstance(p, str) else 1
        return 1 if p > q else -1
    return 0

def php_normal(v):
    v = re.split(r'[@#+ ]', v.strip().split(' as ')[0])[0].lower()
    if v.startswith('dev-'):
        return None
    m = re.match(r'v?(\d+|[x*])(\.(?:\d+|[x*]))?(\.(?:\d+|[x*]))?(\.(?:\d+|[x*]))?-dev$', v)
    if m and re.search(r'[x*]', v[:-4]):
        parts = [p.strip('.') for p in m.groups() if p] + ['x'] * 4
        return '.'.join('9999999' if p in 'x*' else p for p in parts[:4]) + '.dev'
    m = re.match(r'v?(\d+(?:[.:-]\d+)*)(?:[._-]?(stable|beta|b|rc|alpha|a|patch|pl|p)((?:[.-]?\d+)*))?[.-]?(dev)?$', v)
    if not m:
        return None
    nums = re.split(r'[.:-]', m[1])
    if len(nums[0]) <= 5:
        nums += ['0'] * (4 - len(nums))
    word = {'b': 'beta', 'a': 'alpha', 'p': 'patch', 'pl': 'patch', 'stable': None}.get(m[2], m[2])
    if word:
        nums += [word] + re.findall(r'\d+', m[3] or '')
    return '.'.join(nums + (['dev'] if m[4] else []))

def composer(a, b):
    rank = {'dev': 0, 'alpha': 1, 'beta': 2, 'rc': 3, 'patch': 6}
    x, y = (php_normal(v).split('.') for v in (a, b))
    for i in range(max(len(x), len(y))):
        p, q = (x[i] if i < len(x) else None), (y[i] if i < len(y) else None)
        f = lambda t: 4 if t is None else 5 if t.isdigit() else rank[t]
        r = sign(f(p) - f(q)) or (number(p, q) if p and p.isdigit() else 0)
        if r:
            return r
    return 0

ORDERS = {
    'dpkg': (evr(deb_part), lambda v: True), 'rpm': (evr(rpm_part), lambda v: True), 'apk': (apk, lambda v: True),
    'semver': (semver('plain'), lambda v: semver_key(v, 'plain')), 'go': (semver('go'), lambda v: semver_key(v, 'go')),
    'nuget': (semver('nuget'), lambda v: semver_key(v, 'nuget')), 'pep440': (pep440, pep_key), 'maven': (maven, lambda v: True),
    'gem': (gem, lambda v: v.strip()[:1].isdigit()), 'composer': (composer, php_normal),
}

def total(scheme):
    """The order, with what is no version below all that are."""
    order, valid = ORDERS[scheme]
    @functools.lru_cache(None)
    def compare(a, b):
        x, y = bool(valid(a)), bool(valid(b))
        if x and y:
            return order(a, b)
        return x - y if x != y else (a > b) - (a < b)
    return compare

SCHEMES = {'debian': 'dpkg', 'ubuntu': 'dpkg', 'ubuntu-pro': 'dpkg', 'alpine': 'apk', 'almalinux': 'rpm', 'rocky': 'rpm', 'npm': 'semver',
           'pypi': 'pep440', 'go': 'go', 'cargo': 'semver', 'maven': 'maven', 'gem': 'gem', 'composer': 'composer', 'nuget': 'nuget'}
COMPARE = {name: total(scheme) for name, scheme in SCHEMES.items()}

def family(space):
    return space.split(':')[0]

# ---- statements ---------------------------------------------------------------------------------

# (space, package) -> flaw -> [(verdict?, known fix or not affected?, test of a version, record)]
STATEMENTS = defaultdict(lambda: defaultdict(list))
NEVER, ALWAYS = (lambda v: False), (lambda v: True)

def state(space, package, flaw, verdict, settled, test, record):
    if family(space) == 'pypi':
        package = re.sub(r'[-_.]+', '-', package).lower()
    if family(space) in ('nuget', 'composer'):
        package = package.lower()
    STATEMENTS[space, package][flaw].append((verdict, settled, test, record))

def below(space, fixed):
    return lambda v: COMPARE[family(space)](v, fixed) < 0

# ---- feeds --------------------------------------------------------------------------------------

def osv_space(ecosystem):
    name, _, release = ecosystem.partition(':')
    if name == 'Ubuntu':
        parts = [p for p in release.split(':') if p != 'LTS']
        return ('ubuntu:' + parts[0] if len(parts) == 1 else 'ubuntu-pro:' + parts[1] if parts[0] == 'Pro' and len(parts) == 2 else None)
    plain = {'npm': 'npm', 'PyPI': 'pypi', 'Go': 'go', 'crates.io': 'cargo', 'Maven': 'maven', 'RubyGems': 'gem', 'Packagist': 'composer', 'NuGet': 'nuget'}
    if name in plain:
        return plain[name]
    named = {'Debian': 'debian', 'Alpine': 'alpine', 'AlmaLinux': 'almalinux', 'Rocky Linux': 'rocky'}
    return f'{named[name]}:{release.removeprefix("v")}' if name in named else None

def osv(record):
    if record.get('withdrawn') or record['id'].startswith('LSN-'):
        return
    rid = record['id']
    for affected in record.get('affected') or []:
        package = affected.get('package')
        space = package and osv_space(package['ecosystem'])
        if not space:
            continue
        compare = COMPARE[family(space)]
        os = SCHEMES[family(space)] in ('dpkg', 'rpm', 'apk')
        ranges = affected.get('ranges') or []
        ranges = [r for r in (ranges if isinstance(ranges, list) else [ranges]) if r.get('type') != 'GIT']
        versions = affected.get('versions') or []
        if not ranges and not versions:
            continue

        def in_range(v, events):
            # The specification's own algorithm.
            def key(a, b):
                (a, _), (b, _) = a, b
                if a == '0' or b == '0':
                    return (b == '0') - (a == '0')
                return compare(a, b)
            listed = [(value, kind) for event in events for kind, value in event.items()
                      if kind in ('introduced', 'fixed', 'last_affected', 'limit')]
            vulnerable = False
            for value, kind in sorted(listed, key=functools.cmp_to_key(key)):
                if kind == 'introduced' and (value == '0' or compare(v, value) >= 0):
                    vulnerable = True
                elif kind in ('fixed', 'limit') and compare(v, value) >= 0:
                    vulnerable = False
                elif kind == 'last_affected' and compare(v, value) > 0:
                    vulnerable = False
            return vulnerable

        def test(v, ranges=ranges, versions=versions, compare=compare, in_range=in_range, space=space):
            fixed = [e['fixed'] for r in ranges for e in r['events'] if 'fixed' in e]
            if SCHEMES[family(space)] == 'rpm' and fixed and ('.module' in fixed[0]) != ('.module' in v):
                return False
            return any(compare(v, listed) == 0 for listed in versions) or any(in_range(v, r['events']) for r in ranges)

        if not os:
            state(space, package['name'], rid, False, False, test, rid)
            continue
        settled = any('fixed' in e for r in ranges for e in r['events'])
        if 'CVE-' in rid:
            state(space, package['name'], rid[rid.index('CVE-'):], True, settled, test, rid)
            continue
        flaws = {i for key in ('aliases', 'upstream', 'related') for i in record.get(key) or [] if i.startswith('CVE-')}
        if not flaws and rid.startswith('ELA-'):
            flaws = {u['url'].rsplit('/', 1)[-1] for u in record.get('references') or [] if u.get('url', '').rsplit('/', 1)[-1].startswith('CVE-')}
        if not flaws and not re.match('ALBA-|ALEA-|RHBA-|RHEA-', rid):
            flaws = {rid}
        for flaw in flaws:
            state(space, package['name'], flaw, False, settled, test, rid)

RELEASES = dict(wheezy='7', jessie='8', stretch='9', buster='10', bullseye='11', bookworm='12', trixie='13', forky='14', duke='15')

def debian(release):
    return 'debian:' + RELEASES.get(release, release)

def tracker(sources):
    for source, flaws in sources.items():
        for flaw, entry in flaws.items():
            for release, status in entry['releases'].items():
                space = debian(release)
                if status['status'] == 'resolved':
                    fixed = status['fixed_version']
                    state(space, source, flaw, True, True, NEVER if fixed == '0' else below(space, fixed), flaw)
                else:
                    state(space, source, flaw, True, False, ALWAYS, flaw)

def advisory_list(text):
    # An entry runs up to the next line that is not indented; its lines may stand in any order.
    for entry in re.split(r'\n(?=\[)', text):
        head, *lines = entry.splitlines()
        rest = head.split('] ', 1)[1]
        record = rest.split(' ')[0]
        braces = [line for line in lines if line.strip().startswith('{')]
        flaws = re.findall(r'CVE-[0-9]+-[0-9]+', braces[0]) if braces else [record] if 'security update' in rest else []
        for line in lines:
            m = re.match(r'\s+(?:\[(\w+)\] )?- (\S+) (\S+)', line)
            if not m:
                continue
            space, version = debian(m[1] or 'sid'), m[3]
            for flaw in flaws:
                if version in ('<not-affected>', '0'):
                    state(space, m[2], flaw, False, True, NEVER, record)
                elif version in ('<unfixed>', '<no-dsa>', '<postponed>', '<ignored>', '<end-of-life>', '<undetermined>'):
                    state(space, m[2], flaw, False, False, ALWAYS, record)
                elif not version.startswith('<'):
                    state(space, m[2], flaw, False, True, below(space, version), record)

def secdb(document):
    space = 'alpine:' + document['distroversion'].removeprefix('v')
    for entry in document['packages'] or []:
        for version, lines in (entry['pkg'].get('secfixes') or {}).items():
            for line in lines or []:
                ids = [w for w in re.split(r'[ ,;()]', line or '') if re.match('[A-Z].*-', w)]
                if ids:
                    flaw = next((i for i in ids if i.startswith('CVE-')), ids[0])
                    state(space, entry['pkg']['name'], flaw, True, True, NEVER if version == '0' else below(space, version), flaw)

UBUNTU = dict(trusty='14.04', xenial='16.04', bionic='18.04', eoan='19.10', focal='20.04')

def ubuntu(text):
    flaw = re.search(r'^Candidate:\s*(\S+)', text, re.M)
    if not flaw or not flaw[1].startswith('CVE-'):
        return
    for release, source, status in re.findall(r'^([a-z/-]+)_(\S+):[ \t]*(.*)$', text, re.M):
        codename = release.removesuffix('/esm').removeprefix('esm-infra/').removeprefix('esm-apps/')
        if codename not in UBUNTU:
            continue
        space = ('ubuntu:' if codename == release else 'ubuntu-pro:') + UBUNTU[codename]
        word, _, remark = status.partition('(')
        word, remark = word.strip(), remark.rstrip().removesuffix(')').strip()
        if word in ('released', 'released-esm'):
            if remark[:1].isdigit():
                state(space, source, flaw[1], True, True, below(space, remark), flaw[1])
        elif word == 'not-affected':
            state(space, source, flaw[1], True, True, NEVER, flaw[1])
        elif word in ('needed', 'in-progress', 'pending', 'active', 'needs-triage', 'deferred', 'ignored'):
            state(space, source, flaw[1], True, False, ALWAYS, flaw[1])

# Requirements: a test of one condition, all of a list joined by and.

def up(parts, at):
    return '.'.join(parts[:at] + [str(int(parts[at]) + 1)])

def condition(text, space, dialect):
    compare = COMPARE[family(space)]
    op, version = re.match(r'([<>=~^!]*)\s*(.*)$', text).groups()
    parts = version.split('.')
    wild = next((i for i, p in enumerate(parts) if p in ('*', 'x', 'X')), None)
    if wild == 0:
        return ALWAYS
    if wild is not None:
        low, high = '.'.join(parts[:wild]), up(parts[:wild], wild - 1)
        return {'<': lambda v: compare(v, low) < 0, '>=': lambda v: compare(v, low) >= 0, '<=': lambda v: compare(v, high) < 0,
                '>': lambda v: compare(v, high) >= 0}.get(op, lambda v: compare(v, low) >= 0 and compare(v, high) < 0)
    version = version.removeprefix('v')
    release = re.split('[-+]', version)[0].split('.')
    simple = {'<': lambda v: compare(v, version) < 0, '<=': lambda v: compare(v, version) <= 0, '>': lambda v: compare(v, version) > 0,
              '>=': lambda v: compare(v, version) >= 0, '=': lambda v: compare(v, version) == 0, '==': lambda v: compare(v, version) == 0}
    if op in simple:
        return simple[op]
    if op == '' and dialect != 'cargo':
        return simple['=']
    if op in ('', '^'):
        high = up(release, next((i for i, p in enumerate(release) if int(p)), len(release) - 1))
    elif op == '~' and dialect in ('cargo', 'npm'):
        high = up(release, min(1, len(release) - 1))
    else:
        numeric = release[:next((i for i, p in enumerate(release) if not p.isdigit()), len(release))]
        high = up(numeric, max(len(numeric) - 2, 0))
    return lambda v: compare(v, version) >= 0 and compare(v, high) < 0

def requirement(text, space, dialect):
    ways = []
    for way in text.split('|') if dialect in ('npm', 'composer') else [text]:
        if not way.strip():
            continue
        m = re.match(r'\s*(\S+) - (\S+)\s*$', way)
        if m:
            words = ['>=' + m[1], '<=' + m[2]]
        else:
            words = re.findall(r'[<>=~^!]*\s*[^\s,<>=~^!][^\s,]*', way)
        ways.append([condition(w.strip(), space, dialect) for w in words])
    return lambda v: any(all(test(v) for test in way) for way in ways)

def rustsec(text):
    meta = tomllib.loads(text.split('```toml', 1)[1].split('\n```', 1)[0])
    advisory = meta['advisory']
    if advisory.get('withdrawn'):
        return
    good = [requirement(r, 'cargo', 'cargo') for r in meta.get('versions', {}).get('patched', []) + meta.get('versions', {}).get('unaffected', [])]
    state('cargo', advisory['package'], advisory['id'], False, False, lambda v: not any(g(v) for g in good), advisory['id'])

def rubysec(record, path):
    rid = 'CVE-' + record['cve'] if record.get('cve') else 'GHSA-' + record['ghsa'] if record.get('ghsa') else os.path.basename(path)[:-4]
    good = [requirement(r, 'gem', 'gem') for r in (record.get('patched_versions') or []) + (record.get('unaffected_versions') or [])]
    state('gem', record['gem'], rid, False, False, lambda v: not any(g(v) for g in good), rid)

def php(record, path):
    package = record['reference'].removeprefix('composer://')
    rid = record['cve'] if (record.get('cve') or '').startswith('CVE-') else f'{package}/{os.path.basename(path)[:-5]}'
    for branch in record['branches'].values():
        versions = branch.get('versions') or []
        text = ','.join(versions) if isinstance(versions, list) else versions
        if text:
            state('composer', package, rid, False, False, requirement(text, 'composer', 'composer'), rid)

def npm_group(record):
    rid = f'NSWG-ECO-{record["id"]}'
    state('npm', record['module_name'], rid, False, False, requirement(record['vulnerable_versions'], 'npm', 'npm'), rid)

# ---- reading ------------------------------------------------------------------------------------

def load_yaml(text):
    import yaml
    # Everything stays the text that it is.
    return yaml.load(text, Loader=getattr(yaml, 'CBaseLoader', yaml.BaseLoader))

def document(path, data):
    text = data.decode('utf-8', 'replace')
    if path.endswith('.md'):
        return rustsec(text)
    if path.endswith('/list'):
        return advisory_list(text)
    if re.match('(Candidate|PublicDate|CRD)', text):
        return ubuntu(text)
    if path.endswith(('.yaml', '.yml')):
        if re.search('^reponame:', text, re.M):
            return secdb(load_yaml(text))
        if re.search('^gem:', text, re.M):
            return rubysec(load_yaml(text), path)
        if re.search('^reference:.*composer://', text, re.M):
            return php(load_yaml(text), path)
        if re.search('^affected:', text, re.M):
            return osv(load_yaml(text))
        return
    if not path.endswith('.json'):
        return
    value = json.loads(text)
    if 'catalogVersion' in value:
        return
    if 'reponame' in value:
        return secdb(value)
    if 'module_name' in value:
        return npm_group(value)
    if 'id' in value and ('affected' in value or 'modified' in value):
        return osv(value)
    if all(isinstance(v, dict) for v in value.values()) and 'id' not in value:
        first = next(iter(next(iter(value.values())).values()), None)
        if isinstance(first, dict) and 'releases' in first:
            tracker(value)

def feed(path):
    if os.path.isdir(path):
        for name in sorted(os.listdir(path)):
            feed(os.path.join(path, name))
        return
    data = subprocess.run(['zstd', '-dcq', path], check=True, capture_output=True).stdout if path.endswith('.zst') else open(path, 'rb').read()
    path = path.removesuffix('.zst')
    if path.endswith('.tar'):
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            for member in archive:
                if member.isfile():
                    document(member.name, archive.extractfile(member).read())
    elif path.endswith('.jsonl'):
        for line in data.splitlines():
            osv(json.loads(line))
    else:
        document(path, data)

def decided(rows):
    verdicts = [r for r in rows if r[0]]
    if verdicts and len(verdicts) < len(rows):
        return verdicts if any(r[1] for r in verdicts) else [r for r in rows if not r[0]]
    return rows

def main():
    for name in sorted(os.listdir(sys.argv[1])):
        if not name.startswith(('README', 'samples-', 'js-retire')):
            feed(os.path.join(sys.argv[1], name))
    out = set()
    for line in sys.stdin:
        space, package, version = line.rstrip('\n').split('\t')
        if not ORDERS[SCHEMES[family(space)]][1](version):
            continue
        for flaw, rows in STATEMENTS.get((space, package), {}).items():
            for _, _, test, record in decided(rows):
                if test(version):
                    os_feed = SCHEMES[family(space)] in ('dpkg', 'rpm', 'apk')
                    out.add(f'{space}\t{package}\t{version}\t{flaw if os_feed else record}')
    sys.stdout.write(''.join(line + '\n' for line in sorted(out)))

main()
