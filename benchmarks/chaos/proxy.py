"""Something between the daemon and the broker that can be slow: a TCP relay in a thread."""

import asyncio
import contextlib
import threading
import time

_CHUNK_BYTES = 65_536


class DelayProxy:
    """Relays each connection to a port of the loopback address, late in each direction if told so.

    When one side ends, the other is reset. What is late stays in order.
    """

    def __init__(self, host: str, target_port: int) -> None:
        self._host, self._target_port = host, target_port
        self._delay_s = 0.0
        self.port = 0
        """Where it listens, once it does."""
        self._loop = asyncio.new_event_loop()
        self._listens = threading.Event()
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)

    def start(self) -> None:
        """Returns when it listens."""
        self._thread.start()
        self._listens.wait()

    def close(self) -> None:
        """Ends every connection."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def delay(self, delay_s: float) -> None:
        """Each way, from now on; from any thread."""
        self._delay_s = delay_s

    def _run(self) -> None:
        server = self._loop.run_until_complete(asyncio.start_server(self._relay, self._host, 0))
        self.port = server.sockets[0].getsockname()[1]
        self._listens.set()
        self._loop.run_forever()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        server.close()
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self._target_port)
        except OSError:
            writer.transport.abort()
            return
        ways = [
            asyncio.create_task(self._pass_on(reader, back)),
            asyncio.create_task(self._pass_on(there, writer)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            writer.transport.abort()
            back.transport.abort()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        late: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        reading = asyncio.create_task(self._read(reader, late))
        try:
            while True:
                due_s, data = await late.get()
                await asyncio.sleep(due_s - time.monotonic())
                if not data:
                    return
                writer.write(data)
                await writer.drain()
        except OSError:
            return
        finally:
            reading.cancel()

    async def _read(
        self, reader: asyncio.StreamReader, late: "asyncio.Queue[tuple[float, bytes]]"
    ) -> None:
        data = b"-"
        while data:
            data = b""
            with contextlib.suppress(OSError):
                data = await reader.read(_CHUNK_BYTES)
            late.put_nowait((time.monotonic() + self._delay_s, data))
