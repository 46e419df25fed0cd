"""Serves inside a room: carries port 8080 to the test's fake API, whose Unix socket is the first
argument, and answers for DNS at 127.0.0.2 as badly as the first label of a name says. Prints a line
when it is ready."""

import asyncio
import sys

RCODES = {b"servfail": 2, b"nxdomain": 3}


async def carry(reader, writer):
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


async def serve(reader, writer):
    api_reader, api_writer = await asyncio.open_unix_connection(sys.argv[1])
    await asyncio.gather(carry(reader, api_writer), carry(api_reader, writer))


class Dns(asyncio.DatagramProtocol):
    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, query, peer):
        label = query[13 : 13 + query[12]]
        if label not in RCODES:
            return  # silence
        head = query[:2] + bytes([0x81, 0x80 | RCODES[label], 0, 1]) + bytes(6)
        self.transport.sendto(head + query[12:], peer)


async def main():
    loop = asyncio.get_running_loop()
    await loop.create_datagram_endpoint(Dns, local_addr=("127.0.0.2", 53))
    server = await asyncio.start_server(serve, "127.0.0.1", 8080)
    print("ready", flush=True)
    await server.serve_forever()


asyncio.run(main())
