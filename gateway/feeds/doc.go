// Package feeds takes events from outside and turns them into purges: from durable consumers of NATS JetStream and Kafka,
// and from webhooks. An event is acknowledged once its purge is durable, so each is carried out at least once; purging
// twice does no harm. An event that can't be understood is set aside and counted, and the rest go on.
//
// Package gateway hands it the configuration and a Purger, which makes a purge durable and tells every node of it. All
// nodes run the same consumers under the same names, so that the servers share the events out among them, and give what a
// dead node had taken to another.
package feeds
