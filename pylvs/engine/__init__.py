"""The director's own work: stages behind one door (``director``), the breath around them
(``loop``), and the only writer of services, servers, routes and neighbours (``mailbox``)."""
