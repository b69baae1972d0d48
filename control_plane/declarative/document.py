"""A declarative file, taken apart: which entities it names, where, and below which parent.

decK's format 3.0 and the parts of Kong's own format that mean the same: nested and flat lists of entities, references
by name or id, `_info.select_tags`, `_info.defaults`, comments that are dropped. Which collections there are, and what
may be nested in what, follows from the schemas; the fields of an entity are the schema's business, not this module's.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from control_plane.declarative import text as text_reader
from control_plane.declarative.own_settings import SECTION, FileSection, read_section
from control_plane.declarative.problems import Problem, Problems, flatten, remedy_for
from control_plane.declarative.state import name_of, shown_name
from control_plane.entities.errors import EntityError
from control_plane.entities.registry import SCHEMAS
from control_plane.entities.types import EntityBody, JsonValue
from pointsman.rules.paths import normalise

FORMAT_VERSION = "3.0"

OLD_FORMAT_VERSIONS = ("1.1", "2.1")
"""Formats in which a route's path was a regex if it looked like one. They are read as 3.0, with such paths marked."""

_OF_KONG_ITSELF = frozenset({"parameters", "workspaces"})  # in Kong's exports; nothing here stands for them
_PLAIN_PATH = re.compile(r"[A-Za-z0-9.\-_~/%]*")

NOT_YET_SUPPORTED = frozenset(
    {
        "consumer_groups",
        "custom_entities",
        "filter_chains",
        "key_sets",
        "keys",
        "licenses",
        "mtls_auth_credentials",
        "partials",
        "rbac_roles",
        "service_packages",
        "vaults",
    }
)
"""Sections of decK's and Kong's files that this gateway does not have (yet). An empty one does no harm and is let
through; a filled one is refused, because dropping it would make the gateway do less than its file says."""

_NESTED_NOT_YET_SUPPORTED = frozenset({"filter_chains"})
"""The same inside an entity. Fewer, since a route's `snis` and a service's `ca_certificates` are its own fields."""

_SHARED_CONFIGS, _NAMED_CONFIG = "_plugin_configs", "_config"

_DROPPED = frozenset({"_comment", "_ignore"})
_INFO_WITHOUT_EFFECT = frozenset(
    # Names from the store always resolve here, so extra lookups by tag need no switch; the others concern
    # entities that are not supported yet.
    {"consumer_group_policy_overrides", "default_lookup_tags", "include_plugin_definitions", "skip_hash_for_basic_auth"}
)
_NO_DEFAULT = frozenset({"id", "name", "target"})


@dataclass(slots=True, eq=False)
class FileEntity:
    """One entity as the file has it: its own properties only, its children are entities of their own."""

    collection: str
    body: EntityBody
    path: str  # services[0].routes[1]
    line: int | None
    parent: FileEntity | None = None  # the entity it is nested in
    parent_field: str = ""  # the foreign field that the nesting stands for

    @property
    def key(self) -> str:
        """Its name (a target's address), as written; empty if it has none."""
        return name_of(SCHEMAS[self.collection], self.body)

    def problem(self, message: str, remedy: str, *, field: str = "") -> Problem:
        """A problem of this entity."""
        return Problem(
            message=message,
            remedy=remedy,
            path=self.path,
            field=field,
            entity_type=SCHEMAS[self.collection].singular,
            entity_name=shown_name(SCHEMAS[self.collection], self.body),
            line=self.line,
        )

    def problems_of(self, error: EntityError) -> Iterator[Problem]:
        """What an error about this entity says, one problem after the other."""
        schema = SCHEMAS[self.collection]
        leaves = list(flatten(error.fields or {})) or [("", error.message)]
        for name, message in leaves:
            yield self.problem(message, remedy_for(schema.collection, name, message, schema.fields), field=name)


@dataclass(slots=True)
class Document:
    """A file, or several read as one."""

    entities: dict[str, list[FileEntity]] = field(default_factory=lambda: {name: [] for name in SCHEMAS})
    select_tags: tuple[str, ...] | None = None  # None = the file does not say
    defaults: dict[str, EntityBody] = field(default_factory=dict)  # by collection
    transform: bool = True  # False = what is kept as a hash is written as that hash
    own: FileSection = field(default_factory=FileSection)  # our own settings of upstreams and services
    problems: Problems = field(default_factory=Problems)  # of the file's shape; a plan adds to them

    @property
    def entity_count(self) -> int:
        return sum(map(len, self.entities.values()))


def read(text: bytes, content_type: str = "") -> Document:
    """Reads a file. A YAML stream of several documents is read as several files of one configuration.

    What is wrong with the file's shape is noted in the document, so that a plan can tell it together with all that is
    wrong with the entities; that needs the store (references). Raises `FileRefused` for a text that can't be read.
    """
    reader = _Reader()
    for tree in text_reader.read(text, content_type):
        reader.read_tree(tree)
    reader.share_plugin_configs()
    return reader.document


def parse(text: bytes, content_type: str = "") -> Document:
    """`read`, and raise `FileRefused` with everything found wrong in the file's shape."""
    document = read(text, content_type)
    document.problems.raise_if_any()
    return document


def _children() -> dict[str, dict[str, str]]:
    """By collection, what may be nested in its entities: child collection -> the child's foreign field."""
    nested: dict[str, dict[str, str]] = {name: {} for name in SCHEMAS}
    for child in SCHEMAS.values():
        for field_name, foreign in child.foreign_fields.items():
            if foreign.collection in nested and foreign.nested:
                nested[foreign.collection][child.collection] = field_name
    return nested


class _Reader:
    """Fills one document from the trees of its files."""

    def __init__(self) -> None:
        self.document = Document()
        self.problems = self.document.problems
        self._old_paths = False  # the file at hand is of a format in which a path's kind was guessed
        self._children = _children()
        self._plugin_configs: dict[str, EntityBody] = {}
        self._defaults_keys = {schema.singular: schema.collection for schema in SCHEMAS.values()}

    def read_tree(self, tree: JsonValue) -> None:
        if tree is None:
            return
        if not isinstance(tree, dict):
            self._problem(
                f"the file holds {_kind(tree)}, not a mapping", "start it with '_format_version' or a collection"
            )
            return
        line = getattr(tree, "line", None)
        self._old_paths = tree.get("_format_version") in OLD_FORMAT_VERSIONS
        for key, value in tree.items():
            if key in SCHEMAS:
                self._read_list(key, value, place=key, line=line, parent=None, parent_field="")
            elif key in _DROPPED:
                continue
            elif key == "_format_version":
                self._check_format_version(value, line)
            elif key == "_info":
                self._read_info(value, line)
            elif key == SECTION:
                self._read_settings(value, line)
            elif key == "_transform":
                if not isinstance(value, bool):
                    self._problem(f"expected a boolean, found {_kind(value)}", "write true or false", key, line)
                else:
                    self.document.transform = value
            elif key in _OF_KONG_ITSELF:
                continue
            elif key == "_workspace":
                if value != "default":
                    self._problem("there is one workspace, 'default'", "remove '_workspace'", key, line)
            elif key == _SHARED_CONFIGS:
                self._read_plugin_configs(value, line)
            elif key in NOT_YET_SUPPORTED:
                self._refuse_unsupported(key, value, key, line)
            else:
                known = ", ".join(["_format_version", "_info", SECTION, *SCHEMAS])
                self._problem(f"unknown top-level key '{key}'", f"remove it; known are: {known}", key, line)

    def _problem(self, message: str, remedy: str, path: str = "", line: int | None = None) -> None:
        self.problems.add(Problem(message=message, remedy=remedy, path=path, line=line))

    def _check_format_version(self, value: JsonValue, line: int | None) -> None:
        if value == FORMAT_VERSION or value in OLD_FORMAT_VERSIONS:
            return
        if isinstance(value, str):
            message = f"format version '{value}' is not supported"
            remedy = f'write "{FORMAT_VERSION}"; older files of {" and ".join(OLD_FORMAT_VERSIONS)} are read too'
        else:
            message = f"expected a string, found {_kind(value)}"
            remedy = f'write _format_version: "{FORMAT_VERSION}", with the quotes'
        self._problem(message, remedy, "_format_version", line)

    def _read_settings(self, value: JsonValue, line: int | None) -> None:
        own, problems = read_section(value, line)
        for problem in problems:
            self.problems.add(problem)
        self.document.own.settings += own.settings
        self.document.own.collections |= own.collections

    def _read_plugin_configs(self, value: JsonValue, line: int | None) -> None:
        """`_plugin_configs`: settings by a name, which plugins take by `_config`."""
        if not isinstance(value, dict) or not all(isinstance(config, dict) for config in value.values()):
            self._problem(
                "expected a mapping of names to settings", "see decK's '_plugin_configs'", _SHARED_CONFIGS, line
            )
            return
        self._plugin_configs.update({name: config for name, config in value.items() if isinstance(config, dict)})

    def share_plugin_configs(self) -> None:
        """Puts the shared settings into the plugins that name them, once all files are read. A plugin's own win."""
        for entity in self.document.entities["plugins"]:
            if _NAMED_CONFIG not in entity.body:
                continue
            name = entity.body.pop(_NAMED_CONFIG)
            shared = self._plugin_configs.get(name) if isinstance(name, str) else None
            own = entity.body.get("config")
            if shared is None:
                message, remedy = f"there is no '{name}' in '{_SHARED_CONFIGS}'", f"add it to '{_SHARED_CONFIGS}'"
                self.problems.add(entity.problem(message, remedy, field=_NAMED_CONFIG))
            elif own is None or isinstance(own, dict):
                entity.body["config"] = {**copy.deepcopy(shared), **(own or {})}

    def _read_info(self, info: JsonValue, line: int | None) -> None:
        if info is None:
            return
        if not isinstance(info, dict):
            self._problem(f"expected a mapping, found {_kind(info)}", "see decK's '_info'", "_info", line)
            return
        line = getattr(info, "line", line)
        for key, value in info.items():
            path = f"_info.{key}"
            if key == "select_tags":
                self._read_select_tags(value, path, line)
            elif key == "defaults":
                self._read_defaults(value, path, line)
            elif key not in _INFO_WITHOUT_EFFECT:
                self._problem("unknown field", "remove it; known are: select_tags, defaults", path, line)

    def _read_select_tags(self, value: JsonValue, path: str, line: int | None) -> None:
        if value is None:
            return
        if not isinstance(value, list) or not all(isinstance(tag, str) and tag for tag in value):
            self._problem("expected a list of tags", "write them as [one, two]", path, line)
            return
        tags = tuple(dict.fromkeys(str(tag) for tag in value))
        before = self.document.select_tags
        if before is not None and set(before) != set(tags):
            self._problem("the files name different select_tags", "use the same list in all files", path, line)
        self.document.select_tags = tags

    def _read_defaults(self, value: JsonValue, path: str, line: int | None) -> None:
        if value is None:
            return
        if not isinstance(value, dict):
            self._problem(f"expected a mapping, found {_kind(value)}", "write service: {...}", path, line)
            return
        for singular, defaults in value.items():
            place = f"{path}.{singular}"
            collection = self._defaults_keys.get(singular)
            if collection is None:
                known = ", ".join(self._defaults_keys)
                self._problem(f"no defaults for '{singular}'", f"remove it; known are: {known}", place, line)
            elif not isinstance(defaults, dict):
                self._problem(f"expected a mapping, found {_kind(defaults)}", "write field: value", place, line)
            else:
                for key in _NO_DEFAULT & defaults.keys():
                    self._problem(f"'{key}' can't have a default", "remove it", f"{place}.{key}", line)
                self.document.defaults[collection] = merged(defaults, self.document.defaults.get(collection, {}))

    def _read_list(
        self,
        collection: str,
        value: JsonValue,
        *,
        place: str,
        line: int | None,
        parent: FileEntity | None,
        parent_field: str,
    ) -> None:
        if value is None:
            return
        if not isinstance(value, list):
            self._problem(f"expected a list, found {_kind(value)}", "write each as an item: '- ...'", place, line)
            return
        for position, item in enumerate(value):
            path = f"{place}[{position}]"
            if isinstance(item, dict):
                self._read_entity(collection, item, path, parent, parent_field)
            else:
                schema = SCHEMAS[collection]
                remedy = f"write the {schema.singular} as properties: '{schema.endpoint_key or 'id'}: ...'"
                self._problem(f"expected a mapping, found {_kind(item)}", remedy, path, line)

    def _read_entity(
        self, collection: str, item: dict[str, JsonValue], path: str, parent: FileEntity | None, parent_field: str
    ) -> None:
        children = self._children[collection]
        line = getattr(item, "line", None)
        own = {
            key: value
            for key, value in item.items()
            if key not in children and key not in _NESTED_NOT_YET_SUPPORTED and key not in _DROPPED
        }
        if self._old_paths and collection == "routes":
            own["paths"] = _upgraded(own.get("paths"))
            if own["paths"] is None:
                del own["paths"]
        entity = FileEntity(collection, own, path, line, parent, parent_field)
        if parent_field in own:
            del own[parent_field]
            message = f"the nesting already gives '{parent_field}'"
            self.problems.add(entity.problem(message, f"remove '{parent_field}' here", field=parent_field))
        self.document.entities[collection].append(entity)
        for key, value in item.items():
            if key in children:
                self._read_list(key, value, place=f"{path}.{key}", line=line, parent=entity, parent_field=children[key])
            elif key in _NESTED_NOT_YET_SUPPORTED:
                self._refuse_unsupported(key, value, f"{path}.{key}", line, entity)

    def _refuse_unsupported(
        self, key: str, value: JsonValue, path: str, line: int | None, entity: FileEntity | None = None
    ) -> None:
        if not value:
            return
        message, remedy = f"'{key}' are not supported yet", f"remove '{key}' from the file"
        if entity is not None:
            self.problems.add(entity.problem(message, remedy, field=key))
        else:
            self._problem(message, remedy, path, line)


def _upgraded(paths: JsonValue) -> JsonValue:
    """A route's paths of before 3.0: one with other than plain characters was a regex, and now says so."""
    if not isinstance(paths, list):
        return paths
    found: list[JsonValue] = []
    for path in paths:
        if not isinstance(path, str) or path.startswith("~"):
            found.append(path)
        elif _PLAIN_PATH.fullmatch(path):
            normal = normalise(path.encode())
            found.append(normal.decode() if normal.isascii() else path)
        else:
            found.append(f"~{path}")
    return found


def merged(over: Mapping[str, JsonValue], under: Mapping[str, JsonValue]) -> EntityBody:
    """`under` with everything that `over` says put over it; records are merged field by field."""
    result: EntityBody = dict(under)
    for key, value in over.items():
        below = result.get(key)
        if isinstance(value, dict) and isinstance(below, dict):
            result[key] = merged(value, below)
        else:
            result[key] = value
    return result


def effective_tags(document: Document, select_tags: Sequence[str]) -> tuple[str, ...]:
    """The tags that a request and its file select by, together.

    Raises `FileRefused` when both name tags and not the same ones: one of the two is then a mistake, and the wrong
    choice would delete what is not meant.
    """
    if document.select_tags is None:
        return tuple(dict.fromkeys(select_tags))
    if select_tags and set(select_tags) != set(document.select_tags):
        problems = Problems()
        problems.add(
            Problem(
                message=f"the file selects by {list(document.select_tags)}, the request by {list(select_tags)}",
                remedy="give the same tags in both places, or in one only",
                path="_info.select_tags",
            )
        )
        problems.raise_if_any()
    return document.select_tags


def _kind(value: JsonValue) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        return "a string"
    return "a list" if isinstance(value, list) else "a mapping"
