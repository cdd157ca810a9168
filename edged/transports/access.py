"""Who may do what on the bus: the rules that `edged broker acl` writes down for a broker.

A user is a node or a client (or both), named like its level in the topics. A client writes
prompts and cancels under its own level, and reads its own answers and what nodes say of
themselves. A node reads the prompts and cancels that are for it and for its pools, and writes
what it says of itself below its own level; answers it writes below any, since a prompt may direct
them there, and Mosquitto ends the connection of who publishes where it may not. ``rejected`` names
the topics and clients of others, so a node alone reads its own, as its operator does with the
node's credentials. Nobody has any other right.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from edged.errors import ConfigError
from edged.transports.topics import Topics, is_name

POOL = "pool"
SAID = ("status", "card", "state")
"""What a node says of itself to everyone who has an account."""

Act = Literal["write", "read", "listen"]
"""``read``: subscribe to the filter or to less, and receive; ``listen``: to exactly the filter."""


@dataclass(frozen=True)
class Right:
    """What may be done with the topics of a filter."""

    act: Act
    topic: str

    @property
    def received(self) -> str:
        """The topics that arrive: those of a shared subscription are named without the group."""
        if not self.topic.startswith("$share/"):
            return self.topic
        return self.topic.split("/", maxsplit=2)[2]


@dataclass(frozen=True)
class User:
    """A name that a broker knows, and all that it may do."""

    name: str
    rights: tuple[Right, ...]


def client_rights(root: str, client: str) -> tuple[Right, ...]:
    """What a client may do, on every node."""
    return (
        Right("write", f"{root}/+/prompt/{client}"),
        Right("write", f"{root}/{POOL}/+/prompt/{client}"),
        Right("write", f"{root}/+/cancel/{client}"),
        Right("read", f"{root}/+/completion/{client}/#"),
        *(Right("read", f"{root}/+/{said}") for said in SAID),
    )


def node_rights(root: str, node: str, pools: tuple[str, ...] = ()) -> tuple[Right, ...]:
    """What a node may do; the short topics of anonymous clients are its, but nobody writes them."""
    topics = Topics(root, node, pools)
    heard = (*topics.subscriptions(require_client=False), *topics.shares(require_client=False))
    own = (topics.status, topics.card, topics.state, topics.rejected)
    return (
        *(Right("listen", topic) for topic in heard),
        *(Right("write", topic) for topic in own),
        Right("write", f"{root}/+/completion/#"),
        Right("read", topics.rejected),
        *(Right("read", f"{root}/+/{said}") for said in SAID),
    )


def users(
    root: str, nodes: tuple[str, ...], clients: tuple[str, ...], pools: Mapping[str, set[str]]
) -> tuple[User, ...]:
    """Every account there is to be; ``pools`` are the nodes of each.

    Raises ``ConfigError`` where a name is none, or a pool has nodes that are not named.
    """
    for name in (*nodes, *clients, *pools):
        if not is_name(name):
            raise ConfigError(f"{name!r} is no name: 1 to 64 of A-Z, a-z, 0-9, _, . and - are")
    if POOL in nodes:
        raise ConfigError(f"{POOL} cannot be a node's name: it is a level of the pools' topics")
    for pool, members in pools.items():
        if unknown := sorted(members.difference(nodes)):
            raise ConfigError(f"the pool {pool} has nodes that are not named: {', '.join(unknown)}")
    return tuple(
        User(
            name,
            (
                *(client_rights(root, name) if name in clients else ()),
                *(_rights_of_node(root, name, pools) if name in nodes else ()),
            ),
        )
        for name in sorted({*nodes, *clients})
    )


def _rights_of_node(root: str, node: str, pools: Mapping[str, set[str]]) -> tuple[Right, ...]:
    return node_rights(
        root, node, tuple(sorted(p for p, members in pools.items() if node in members))
    )
